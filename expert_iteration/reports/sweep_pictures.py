"""The pictures of a sweep; here those of all settings together, on a map or through parallel axes."""

import math
from collections.abc import Iterator, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from expert_iteration.reports.look import SEQUENTIAL
from expert_iteration.reports.sweep_axes import Axis
from expert_iteration.reports.sweep_curves import curves
from expert_iteration.reports.sweep_finals import finals
from expert_iteration.reports.sweep_look import WIDTH, Picture, shown
from expert_iteration.reports.sweep_ranking import MEASURES, Group

MAIN = next(iter(MEASURES))
FILLED = 0.6
"""Share of the cells that a map needs; a search leaves most of them empty."""
DARK = 0.45
"""Share of the colour map that white letters are read on."""
MOST_NAMED = 12
"""Values that are written beside a parallel axis; of more, the ends."""
LABEL = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.75}


def pictures_of(groups: Sequence[Group], axes: Sequence[Axis]) -> Iterator[Picture]:
    """All that a sweep has to show, the answers first.

    Args:
        groups: its settings, best first; at least one.
        axes: what it varies.
    """
    runs = [run for group in groups for run in group.runs]
    if len(axes) == 2 and len(groups) >= FILLED * math.prod(len(axis.values) for axis in axes):
        yield heat_map(groups, *axes)
    elif len(axes) > 1 and groups[0].estimate(MAIN):
        yield parallel(groups, axes)
    for axis in axes:
        yield finals(groups, axes, axis)
    for axis in axes:
        yield curves(runs, axis)
    if not axes:
        yield curves(runs, None)


def heat_map(groups: Sequence[Group], down: Axis, across: Axis) -> Picture:
    """Final accuracy by two axes. A cell without a finished run stays empty."""
    figure = Figure(figsize=(WIDTH, 1.2 + 0.55 * len(down.values)), layout="constrained")
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    for panel, (measure, name) in zip(panels, MEASURES.items(), strict=True):
        _draw_cells(panel, groups, down, across, measure)
        panel.set_title(f"{name} at the end")
        panel.set_xlabel(across.key)
    panels[0].set_ylabel(down.key)
    caption = "Accuracy in percent, with half its 95% interval. Each map runs from its worst to its best."
    return Picture("heat_map", f"{down.key} x {across.key}", caption, figure)


def _draw_cells(panel: Axes, groups: Sequence[Group], down: Axis, across: Axis, measure: str) -> None:
    found = {group.values: estimate for group in groups if (estimate := group.estimate(measure))}
    grid = [
        [found[row, column].mean if (row, column) in found else math.nan for column in across.values]
        for row in down.values
    ]
    known = [one.mean for one in found.values()] or [0.0]
    norm = Normalize(min(known), max(known))
    panel.grid(visible=False)
    panel.imshow(grid, cmap=SEQUENTIAL, norm=norm, aspect="auto", origin="lower")
    panel.set_xticks(range(len(across.values)), [shown(value) for value in across.values])
    panel.set_yticks(range(len(down.values)), [shown(value) for value in down.values])
    for (row, column), one in found.items():
        words = f"{100 * one.mean:.1f}\n±{50 * (one.high - one.low):.1f}"
        color = "white" if float(norm(one.mean)) < DARK else "black"
        place = across.values.index(column), down.values.index(row)
        panel.text(*place, words, ha="center", va="center", fontsize=8, color=color)


def parallel(groups: Sequence[Group], axes: Sequence[Axis]) -> Picture:
    """A line for each setting through its values to its final accuracy, the best on top."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panel = figure.subplots()
    panel.grid(visible=False)
    finals = [(group, estimate.mean) for group in groups if (estimate := group.estimate(MAIN))]
    norm = Normalize(finals[-1][1], finals[0][1])
    for number, (group, mean) in reversed(list(enumerate(finals))):
        heights = [axis.height(value) for axis, value in zip(axes, group.values, strict=True)]
        color = matplotlib.colormaps[SEQUENTIAL](norm(mean))
        panel.plot(range(len(axes) + 1), [*heights, norm(mean)], color=color, lw=1.2 if number else 2.6)
    for number, axis in enumerate(axes):
        _draw_axis(panel, number, axis)
    panel.set_xticks(range(len(axes) + 1), [*(axis.key for axis in axes), f"{MEASURES[MAIN]} at the end"])
    panel.set_yticks([])
    panel.spines[["left", "bottom"]].set_visible(False)
    shares = PercentFormatter(1.0, decimals=0)
    figure.colorbar(ScalarMappable(norm, SEQUENTIAL), ax=panel, format=shares).outline.set_visible(False)
    caption = "A line is a setting, coloured by its accuracy; the thick one is the best."
    return Picture("parallel", "All settings", caption, figure)


def _draw_axis(panel: Axes, number: int, axis: Axis) -> None:
    panel.axvline(number, color="0.3", lw=0.8)
    for value in axis.values if len(axis.values) <= MOST_NAMED else (axis.values[0], axis.values[-1]):
        panel.annotate(
            shown(value),
            (number, axis.height(value)),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=7,
            va="center",
            bbox=LABEL,
        )
