"""How the values of a sweep look: in words, in colour, and along an axis."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from expert_iteration.reports.look import MARKERS, OKABE_ITO, SEQUENTIAL
from expert_iteration.reports.sweep_axes import Axis, Scale
from expert_iteration.reports.sweep_runs import Value

WIDTH = 7.4
"""Of a figure, in inches."""
NEAREST = 0.07
"""Part of an axis by which values must differ to have a tick each."""
ROOM = 36
"""Characters that fit below a panel side by side."""


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its file without suffix, and what it shows."""

    name: str
    title: str
    caption: str
    figure: Figure


def file_name(kind: str, key: str) -> str:
    return f"{kind}_{key.replace('/', '-')}"


def shown(value: Value) -> str:
    """A value as people write it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def look_of(axis: Axis | None, number: int) -> dict[str, Any]:
    """Colour, marker and line of the value with this number. Many numbers go from dark to light."""
    count = len(axis.values) if axis else 1
    marker = MARKERS[number % len(MARKERS)]
    if axis and count > len(OKABE_ITO) and axis.scale is not Scale.ORDINAL:
        return {"color": matplotlib.colormaps[SEQUENTIAL](0.9 * number / (count - 1)), "marker": marker}
    rounds, place = divmod(number, len(OKABE_ITO))
    return {"color": OKABE_ITO[place], "marker": marker, "ls": ("-", "--", ":")[rounds % 3]}


def lay_out(panel: Axes, axis: Axis) -> None:
    """The axis below a panel: its scale, and a tick for each value where they do not crowd."""
    panel.set_xlabel(axis.key)
    if axis.scale is Scale.ORDINAL:
        panel.set_xlim(-0.5, len(axis.values) - 0.5)
    if axis.scale is Scale.LOG:
        panel.set_xscale("log")
    gaps = [axis.height(high) - axis.height(low) for low, high in pairwise(axis.values)]
    if axis.scale is Scale.ORDINAL or min(gaps, default=1.0) >= NEAREST:
        labels = [shown(value) for value in axis.values]
        steep = sum(map(len, labels)) > ROOM
        panel.xaxis.set_major_locator(FixedLocator([axis.place(value) for value in axis.values]))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xticklabels(labels, rotation=40 if steep else 0, ha="right" if steep else "center")
