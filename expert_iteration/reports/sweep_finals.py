"""Accuracy at the end of training by the values of an axis."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from expert_iteration.reports.look import OKABE_ITO
from expert_iteration.reports.sweep_axes import Axis, Scale
from expert_iteration.reports.sweep_look import WIDTH, Picture, file_name, lay_out, look_of, shown
from expert_iteration.reports.sweep_ranking import MEASURES, Group

Point: TypeAlias = tuple[float, float, float, float]
"""Place on the axis, mean, distances to the lower and to the upper end of its interval."""


def finals(groups: Sequence[Group], axes: Sequence[Axis], axis: Axis) -> Picture:
    """Final accuracy by the values of `axis`. A second axis becomes the lines; of more, the mean is taken."""
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    others = [other for other in axes if other != axis]
    for panel, (measure, name) in zip(panels, MEASURES.items(), strict=True):
        if len(others) > 1:
            _draw_mean(panel, _points(groups, axes.index(axis), axis, measure), axis)
        else:
            for number, line in enumerate(others[0].values if others else (None,)):
                own = [group for group in groups if not others or group.values[axes.index(others[0])] == line]
                look = look_of(others[0] if others else None, number)
                _draw_line(panel, _points(own, axes.index(axis), axis, measure), axis, shown(line), look)
        panel.set_title(name)
        lay_out(panel, axis)
    panels[0].set_ylabel("accuracy at the end")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if len(others) == 1:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", title=others[0].key)
    several = "A grey point is a setting, a blue one the mean of all with this value."
    caption = several if len(others) > 1 else "A point is a setting, with its 95% interval."
    return Picture(file_name("final", axis.key), f"At the end, by {axis.key}", caption, figure)


def _points(groups: Sequence[Group], column: int, axis: Axis, measure: str) -> list[Point]:
    found = [(axis.place(group.values[column]), group.estimate(measure)) for group in groups]
    return sorted(
        (place, one.mean, max(0.0, one.mean - one.low), max(0.0, one.high - one.mean))
        for place, one in found
        if one
    )


def _draw_line(panel: Axes, points: Sequence[Point], axis: Axis, label: str, look: dict[str, Any]) -> None:
    if points:
        places, means, below, above = zip(*points, strict=True)
        style: dict[str, Any] = {"ms": 4.5, "lw": 1.4, "elinewidth": 0.9, "capsize": 2.5, "label": label}
        style |= look | ({"ls": "none"} if axis.scale is Scale.ORDINAL else {})
        panel.errorbar(places, means, (below, above), **style)


def _draw_mean(panel: Axes, points: Sequence[Point], axis: Axis) -> None:
    panel.scatter([place for place, *_ in points], [mean for _, mean, *_ in points], s=12, color="0.65")
    places = sorted({place for place, *_ in points})
    means = [fmean(mean for there, mean, *_ in points if there == place) for place in places]
    line = "none" if axis.scale is Scale.ORDINAL else "-"
    panel.plot(places, means, color=OKABE_ITO[0], marker="o", ms=5, lw=1.4, ls=line)
