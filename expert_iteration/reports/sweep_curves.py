"""Accuracy and entropy over training, by the values of an axis."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from expert_iteration.reporting.statistics import wilson
from expert_iteration.reports.sweep_axes import Axis, value_of
from expert_iteration.reports.sweep_look import WIDTH, Picture, file_name, look_of, shown
from expert_iteration.reports.sweep_runs import Curve, SweepRun

MOST_NAMED = 16
"""Values in a legend."""
MANY = 12
"""Values that are smoothed."""
CAPTION = (
    "Thin lines are runs, thick ones the means of all runs with this value. Entropy in training is that of "
    "each run, smoothed over three reports where there are many. A band is the 95% interval of a value's "
    "only run."
)


@dataclass(frozen=True)
class Panel:
    """A metric over training."""

    key: str
    title: str
    curve: Callable[[SweepRun, str], Curve]
    along: str
    share: bool = False
    """In [0, 1], of the questions of an evaluation; the others are in nats a token."""


PANELS = (
    Panel("eval/greedy", "greedy accuracy", SweepRun.by_iteration, "iteration", share=True),
    Panel("eval/pass@1", "pass@1 (sampled)", SweepRun.by_iteration, "iteration", share=True),
    Panel("rollout/entropy", "entropy, sampling", SweepRun.by_iteration, "iteration"),
    Panel("train/entropy", "entropy, training", SweepRun.by_step, "optimizer step"),
)


def curves(runs: Sequence[SweepRun], axis: Axis | None) -> Picture:
    """A panel for each metric that was measured; without an axis, all runs are one value."""
    present = [panel for panel in PANELS if any(panel.curve(run, panel.key) for run in runs)]
    rows = math.ceil(len(present) / 2) or 1
    figure = Figure(figsize=(WIDTH, 2.6 * rows + 0.3), layout="constrained")
    cells = figure.subplots(rows, 2, squeeze=False).flatten()
    for cell, panel in zip(cells, present, strict=False):
        for number, value in enumerate(axis.values if axis else (None,)):
            own = [run for run in runs if axis is None or value_of(run, axis.key) == value]
            _draw_runs(cell, own, panel, shown(value), look_of(axis, number))
        _label(cell, panel)
    for cell in cells[len(present) :]:
        cell.set_visible(False)
    if axis:
        _name_values(figure, axis)
    title = f"Over training, by {axis.key}" if axis else "Over training"
    return Picture(file_name("curves", axis.key if axis else "all"), title, CAPTION, figure)


def _draw_runs(cell: Axes, runs: Sequence[SweepRun], panel: Panel, label: str, look: dict[str, Any]) -> None:
    found = [curve for run in runs if (curve := panel.curve(run, panel.key))]
    line = {name: value for name, value in look.items() if name != "marker"}
    if panel.curve is SweepRun.by_step:
        for curve in found:
            cell.plot(list(curve), smooth(list(curve.values())), lw=0.9, **line)
    elif found:
        for curve in found if len(found) > 1 else ():
            cell.plot(list(curve), list(curve.values()), lw=0.6, alpha=0.45, **line)
        mean = mean_of(found)
        cell.plot(list(mean), list(mean.values()), lw=1.8, ms=4, label=label, **look)
        if panel.share and len(found) == 1 and (questions := runs[0].questions):
            lows, highs = zip(*(wilson(share, questions) for share in mean.values()), strict=True)
            cell.fill_between(list(mean), lows, highs, color=look["color"], alpha=0.1, lw=0)


def _label(cell: Axes, panel: Panel) -> None:
    cell.set_title(panel.title)
    cell.set_xlabel(panel.along)
    cell.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if panel.share:
        cell.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    else:
        cell.set_ylabel("nats a token")


def _name_values(figure: Figure, axis: Axis) -> None:
    """A legend; of many values, some."""
    for cell in figure.axes:
        handles, labels = cell.get_legend_handles_labels()
        if handles:
            step = math.ceil(len(handles) / MOST_NAMED)
            figure.legend(handles[::step], labels[::step], loc="outside right upper", title=axis.key)
            return


def mean_of(found: Sequence[Curve]) -> Curve:
    """The mean where all curves have a value."""
    common = sorted(set.intersection(*(set(curve) for curve in found)))
    return {place: fmean(curve[place] for curve in found) for place in common}


def smooth(values: Sequence[float]) -> list[float]:
    """The mean of each value and its two neighbours; few values stay as they are."""
    if len(values) < MANY:
        return list(values)
    return [fmean(values[max(0, here - 1) : here + 2]) for here in range(len(values))]
