"""The curves of a run: the plots of run_plots.py, drawn."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

from expert_iteration.reporting.statistics import wilson
from expert_iteration.reporting.text import one_line
from expert_iteration.reports.look import MARKERS, OKABE_ITO
from expert_iteration.reports.run_plots import Line, Plot
from expert_iteration.reports.runs import RunFiles

Series = dict[int, float]
"""Iteration or optimizer step -> value."""

SIZE = (4.6, 2.7)
"""Inches: two beside each other on a page."""
FRAME = (0.14, 0.17, 0.83, 0.72)
"""Left, bottom, width and height of the axes, as shares of the figure."""
STEPS = (1, 2, 2.5, 5, 10)
"""Between ticks, times a power of ten."""
MOST_MARKED = 30
"""Points of a line that get a mark each."""
MOST_BARS = 40
"""Iterations whose bars are drawn with room between them."""
LEAST_SPREAD = 10
"""Times the least value, from where the greatest one asks for a logarithmic axis."""
LONGEST = 400
"""Points above which a line is drawn pale, under its running mean."""
LONGEST_LABEL = 40
"""Characters."""
MOST_PARTS = len(OKABE_ITO)
"""Levels, subjects or tasks whose curves can be told apart."""


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its file without suffix, and what it shows."""

    name: str
    title: str
    caption: str
    alt: str
    """Its main points in words, for those who do not see it."""
    figure: Figure
    wide: bool = False


def trained_tokens_per_second(run: RunFiles) -> Series:
    tokens, seconds = run.summed("train/tokens"), run.summed("time/learn")
    return {at: tokens[at] / seconds[at] for at in tokens if seconds.get(at)}


DERIVED: Mapping[str, Callable[[RunFiles], Series]] = {"derived/trained_tokens": trained_tokens_per_second}


def drawn(run: RunFiles, plots: Sequence[Plot]) -> Iterator[Picture]:
    """The plots whose metrics the run has, without those of which `zero` tells."""
    for plot in plots:
        found = measured(run, plot)
        told = {line: values for line, values in found.items() if plot.zeros or any(values.values())}
        if told:
            yield picture(run, plot, told)


def zero(run: RunFiles, plots: Sequence[Plot]) -> list[str]:
    """Titles of plots that are left out because what the run measured is 0 throughout."""
    found = {plot: measured(run, plot) for plot in plots if not plot.zeros}
    return [
        plot.title
        for plot, told in found.items()
        if told and not any(any(values.values()) for values in told.values())
    ]


def measured(run: RunFiles, plot: Plot) -> dict[Line, Series]:
    """What a plot would show, without the lines that the run did not measure."""
    found = {line: series(run, plot, line) for line in plot.lines}
    return {line: values for line, values in found.items() if values}


def parts(run: RunFiles) -> Plot | None:
    """Greedy accuracy by level, subject and task; None if there is one kind, or too many for a picture."""
    names = [key.removeprefix("eval/greedy/") for key in run.keys("eval/greedy/")]
    if not 2 <= len(names) <= MOST_PARTS:
        return None
    lines = tuple(Line(f"eval/greedy/{name}", name.replace("_", " "), f"eval/n/{name}") for name in names)
    caption = "Greedy, with 95% intervals (Wilson)."
    return Plot("accuracy_by_part", "Accuracy by kind of question", "accuracy", lines, caption, share=True)


def series(run: RunFiles, plot: Plot, line: Line) -> Series:
    if line.key in DERIVED:
        return DERIVED[line.key](run)
    return run.by_step(line.key) if plot.by_step else run.by_iteration(line.key)


def picture(run: RunFiles, plot: Plot, told: Mapping[Line, Series]) -> Picture:
    figure, axes = frame(plot.title, plot.along, plot.unit)
    for number, (line, values) in enumerate(told.items()):
        draw_line(axes, line, values, number)
        if questions := run.by_iteration(line.questions) if line.questions else {}:
            draw_interval(axes, values, questions, number, band=len(told) <= 2)
    if plot.log:
        spread(axes, [value for values in told.values() for value in values.values()])
    elif plot.share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if len(told) > 1:
        axes.legend(fontsize=7.5, loc="best", handlelength=1.8)
    words = " ".join(told_of(line, values, plot) for line, values in told.items())
    return Picture(plot.name, plot.title, plot.caption, f"{plot.title} by {plot.along}. {words}", figure)


def frame(title: str, along: str, unit: str) -> tuple[Figure, Axes]:
    """An empty plot. Places are given, as to compute them costs more than to draw."""
    figure = Figure(figsize=SIZE)
    axes = figure.add_axes(FRAME)
    axes.set_title(title, fontsize=10, loc="left", fontweight="bold", y=1.03)
    axes.set_xlabel(along)
    axes.set_ylabel(unit)
    axes.xaxis.set_label_coords(0.5, -0.15)
    axes.yaxis.set_label_coords(-0.135, 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=STEPS))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    return figure, axes


def spread(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis, if the values are far apart."""
    if min(values) <= 0 or max(values) < LEAST_SPREAD * min(values):
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def draw_line(axes: Axes, line: Line, values: Series, number: int) -> None:
    color, marker = OKABE_ITO[number % len(OKABE_ITO)], MARKERS[number % len(MARKERS)]
    at, heights, label = list(values), list(values.values()), plain(line.label)
    marks = marker if len(at) <= MOST_MARKED else ""
    if len(at) <= LONGEST:
        axes.plot(at, heights, color=color, lw=1.5, marker=marks, ms=3.5, label=label)
        return
    window = len(at) // 50
    axes.plot(at, heights, color=color, lw=0.5, alpha=0.3)
    axes.plot(at, running_mean(heights, window), color=color, lw=1.5, label=f"{label}, mean of {window}")


def draw_interval(axes: Axes, values: Series, questions: Series, number: int, band: bool) -> None:
    """As a band, or where bands would hide each other as bars."""
    color = OKABE_ITO[number % len(OKABE_ITO)]
    counts = {at: round(questions.get(at, 0)) for at in values}
    bounds = {at: wilson(values[at], n) for at, n in counts.items() if n}
    lows, highs = [low for low, _ in bounds.values()], [high for _, high in bounds.values()]
    if band:
        axes.fill_between(list(bounds), lows, highs, color=color, alpha=0.15, lw=0)
    else:
        axes.vlines(list(bounds), lows, highs, color=color, alpha=0.5, lw=1)


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Of the last `window` values at each, of fewer at the beginning."""
    total, means = 0.0, []
    for place, value in enumerate(values):
        total += value - (values[place - window] if place >= window else 0.0)
        means.append(total / min(place + 1, window))
    return means


def plain(label: str) -> str:
    """A label that is one line, and in which matplotlib finds no formula and no order to leave it out."""
    return one_line(label, LONGEST_LABEL).lstrip("_").replace("$", r"\$")


def told_of(line: Line, values: Series, plot: Plot) -> str:
    """A curve in a sentence."""
    (first, start), (last, end) = ends(values)
    before = "" if first == last else f"from {number_of(start, plot.share)} at {first} to "
    return f"{line.label}: {before}{number_of(end, plot.share)} at {last}."


def ends(values: Series) -> tuple[tuple[int, float], tuple[int, float]]:
    """Where a curve begins and where it ends."""
    points = list(values.items())
    return points[0], points[-1]


def number_of(value: float, share: bool = False) -> str:
    if not math.isfinite(value):
        return "none"
    return f"{value:.1%}" if share else f"{value:,.4g}"
