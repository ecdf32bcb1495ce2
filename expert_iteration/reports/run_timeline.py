"""The timeline of a run: one lane for each process, coloured by what it did."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from expert_iteration.reporting.text import duration
from expert_iteration.reports.run_curves import Picture, plain
from expert_iteration.reports.spans import KINDS, Chronicle, Lane, Span, rows_of

COLOURS = {
    "collect": "#0072B2",
    "grade": "#009E73",
    "score": "#E69F00",
    "learn": "#D55E00",
    "push": "#CC79A7",
    "evaluate": "#56B4E9",
    "other": "#57606a",
}
WAIT = "#e6e9ed"
WIDTH = 10.4
"""Inches."""
PIXELS = 1500
"""Across a timeline, about as many as the picture has."""
HEIGHT = 0.36
"""Inches of a lane."""
BELOW, ABOVE = 0.48, 0.32
"""Inches of the axis, and of title and legend."""
FEWEST_TO_ENLARGE = 3
"""Iterations of a run of which one is drawn again, larger."""
PAUSE = 0.01
"""Share of the width at which sessions are apart."""


@dataclass(frozen=True)
class Clock:
    """Where a time lies on the axis: seconds since the start, without the pauses between sessions."""

    sessions: tuple[Span, ...]

    @property
    def gap(self) -> float:
        return PAUSE * sum(session.seconds for session in self.sessions) if len(self.sessions) > 1 else 0.0

    def starts(self) -> list[float]:
        starts, at = [], 0.0
        for session in self.sessions:
            starts.append(at)
            at += session.seconds + self.gap
        return starts

    def at(self, span: Span) -> tuple[float, float] | None:
        """Start and length; None if it lies outside of all sessions."""
        for start, session in zip(self.starts(), self.sessions, strict=True):
            if span.end >= session.start and span.start <= session.end:
                inside = Span(max(span.start, session.start), min(span.end, session.end))
                return start + inside.start - session.start, inside.seconds
        return None

    @property
    def seconds(self) -> float:
        """At least a thousandth, as it may be divided by."""
        return max(1e-3, self.starts()[-1] + self.sessions[-1].seconds)


def timelines(chronicle: Chronicle) -> Iterator[Picture]:
    """The whole run, and of a longer one an iteration from its middle."""
    pauses = [
        duration(later.start - earlier.end)
        for earlier, later in zip(chronicle.sessions, chronicle.sessions[1:], strict=False)
    ]
    caption = (
        "One lane for each process, in rows where it did several things at once. Every point shows what took "
        f"most of its time; grey: waiting; other: {', '.join(KINDS['other'])}."
    )
    if pauses:
        caption += f" Dashed: the run was stopped, for {', '.join(pauses[:5])}; that time is left out."
    title = "Timeline of the processes"
    figure = drawing(title, chronicle, chronicle.sessions)
    yield Picture("timeline", title, caption, f"{title}. {_words(chronicle)}", figure, wide=True)
    iterations = chronicle.iterations()
    if len(iterations) >= FEWEST_TO_ENLARGE:
        middle = iterations[len(iterations) // 2]
        title, window = f"Timeline of iteration {middle}", chronicle.window(middle)
        caption = "The same for one iteration, in seconds since its beginning."
        alt = f"{title}: the same processes during its {window.seconds:,.1f} seconds."
        figure = drawing(title, chronicle, [window])
        yield Picture("timeline_iteration", title, caption, alt, figure, wide=True)


def drawing(title: str, chronicle: Chronicle, sessions: Sequence[Span]) -> Figure:
    clock = Clock(tuple(sessions))
    lanes = HEIGHT * len(chronicle.lanes)
    height = BELOW + lanes + ABOVE
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.1, BELOW / height, 0.88, lanes / height))
    for place, lane in enumerate(chronicle.lanes):
        draw_lane(axes, lane, place, clock)
    dress(axes, chronicle, clock)
    axes.set_title(title, fontsize=10, loc="left", fontweight="bold", y=1.03)
    return figure


def draw_lane(axes: Axes, lane: Lane, place: int, clock: Clock) -> None:
    """At height `place`: grey for the whole time; over it what was done, in several rows if it overlaps."""
    waits = [(start, session.seconds) for start, session in zip(clock.starts(), clock.sessions, strict=True)]
    axes.broken_barh(waits, (place - 0.4, 0.8), color=WAIT, lw=0)
    rows = rows_of(lane)
    thickness = 0.8 / len(rows)
    for number, kinds in enumerate(rows):
        for kind, bars in bars_of(lane, kinds, clock).items():
            height = (place - 0.4 + number * thickness, thickness)
            axes.broken_barh(bars, height, color=COLOURS[kind], lw=0)


def bars_of(lane: Lane, kinds: Sequence[str], clock: Clock) -> dict[str, list[tuple[float, float]]]:
    """Start and length of the bars of each kind: every pixel shows what it was spent on most, or the wait."""
    width = clock.seconds / PIXELS
    filled = {kind: [0.0] * PIXELS for kind in kinds}
    for kind, pixels in filled.items():
        for span in lane.of_kind(kind):
            if (bar := clock.at(span)) is not None:
                fill(pixels, *bar, width)
    bars: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    winners = (_winner({kind: pixels[at] for kind, pixels in filled.items()}, width) for at in range(PIXELS))
    for kind, run in groupby(enumerate(winners), key=itemgetter(1)):
        if kind is not None:
            places = [at for at, _ in run]
            bars[kind].append((places[0] * width, len(places) * width))
    return bars


def fill(pixels: list[float], start: float, length: float, width: float) -> None:
    """Add a bar's seconds to the pixels that it lies on, each of `width` seconds."""
    end = start + length
    for at in range(max(0, int(start / width)), min(len(pixels), int(end / width) + 1)):
        pixels[at] += max(0.0, min(end, (at + 1) * width) - max(start, at * width))


def _winner(seconds: Mapping[str, float], width: float) -> str | None:
    kind = max(seconds, key=lambda kind: seconds[kind])
    waited = width - sum(seconds.values())
    return kind if seconds[kind] > max(0.0, waited) else None


def dress(axes: Axes, chronicle: Chronicle, clock: Clock) -> None:
    lanes = chronicle.lanes
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_yticks(range(len(lanes)), [plain(lane.name.replace("_", " ")) for lane in lanes])
    axes.set_xlim(0, clock.seconds)
    axes.set_xlabel("seconds")
    axes.grid(visible=False)
    for start in clock.starts()[1:]:
        axes.axvline(start - clock.gap / 2, color="black", lw=0.8, ls="--")
    present = {kind for lane in lanes for kind in lane.kinds}
    patches = [Patch(color=COLOURS[kind], label=kind) for kind in KINDS if kind in present]
    axes.legend(
        handles=[*patches, Patch(color=WAIT, label="wait")],
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=len(patches) + 1,
        fontsize=8,
        handlelength=1.0,
        columnspacing=1.2,
        borderaxespad=0.2,
    )


def _words(chronicle: Chronicle) -> str:
    """Of each process, what it did most and how long it waited."""
    said = []
    for lane in chronicle.lanes:
        spent = chronicle.spent(lane)
        shares = (f"{kind} {seconds / max(chronicle.seconds, 1e-9):.0%}" for kind, seconds in spent.items())
        said.append(f"{lane.name.replace('_', ' ')}: {', '.join(shares)}.")
    return " ".join(said)
