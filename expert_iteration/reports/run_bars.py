"""The bars of a run: what became of the answers, and what each iteration took its time for."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from matplotlib.ticker import PercentFormatter

from expert_iteration.reports.look import OKABE_ITO
from expert_iteration.reports.run_curves import FRAME, MOST_BARS, Picture, Series, frame, plain
from expert_iteration.reports.run_timeline import COLOURS as KIND_COLOURS
from expert_iteration.reports.runs import RunFiles
from expert_iteration.reports.spans import KIND_OF

GREY = "#8c959f"
COLOURS = (*OKABE_ITO, GREY)
HATCHES = ("", "///", "...", "xxx")
"""What has the colour of another is told from it by these."""
NO_FATES = ("selection/kept_share",)
SHARE = "share of answers"
LEGEND = 0.23
"""Share of the figure's width."""
BEFORE = ("time/start", "time/load")
"""Phases before the first iteration, which would dwarf the others."""


def fates(run: RunFiles) -> Iterator[Picture]:
    """Shares of the answers by what selection did with them; nothing for runs that did not count."""
    counts = run.by_iteration("rollout/count")
    keys = [key for key in run.keys("selection/") if key not in NO_FATES]
    shares = {
        key.removeprefix("selection/").replace("_", " "): {
            at: value / counts[at] for at, value in run.by_iteration(key).items() if counts.get(at)
        }
        for key in keys
    }
    told = {name: values for name, values in shares.items() if any(values.values())}
    if told:
        caption = "Shares of all answers of an iteration; rollouts/ has the fate of each."
        colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(told)}
        yield stacked("fates", "What became of the answers", SHARE, told, colours, caption)


def phases(run: RunFiles) -> Iterator[Picture]:
    """Seconds of each iteration by phase."""
    keys = [key for key in run.keys("time/") if key not in BEFORE]
    told = {key.removeprefix("time/"): run.summed(key) for key in keys}
    if told:
        caption = "Seconds of each phase as the driver saw it; phases of an asynchronous run overlap."
        colours = {phase: KIND_COLOURS[KIND_OF.get(phase, "other")] for phase in told}
        yield stacked("phases", "Where the time went", "seconds", told, colours, caption)


def stacked(
    name: str, title: str, unit: str, told: Mapping[str, Series], colours: Mapping[str, str], caption: str
) -> Picture:
    figure, axes = frame(title, "iteration", unit)
    places = sorted({at for values in told.values() for at in values})
    bottoms, taken = dict.fromkeys(places, 0.0), Counter[str]()
    for label, values in told.items():
        heights = [values.get(at, 0.0) for at in places]
        axes.bar(
            places,
            heights,
            bottom=list(bottoms.values()),
            width=0.8 if len(places) <= MOST_BARS else 1.0,
            color=colours[label],
            hatch=HATCHES[taken[colours[label]] % len(HATCHES)],
            label=plain(label),
        )
        taken[colours[label]] += 1
        bottoms = {at: bottoms[at] + height for at, height in zip(places, heights, strict=True)}
    left, bottom, width, height = FRAME
    axes.set_position((left, bottom, width - LEGEND, height))
    axes.yaxis.set_label_coords(-0.135 * width / (width - LEGEND), 0.5)
    if unit == SHARE:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="x", visible=False)
    axes.legend(fontsize=7.5, loc="upper left", bbox_to_anchor=(1.0, 1.02), handlelength=1.2)
    return Picture(name, title, caption, f"{title} by iteration. {_words(told, places)}", figure)


def _words(told: Mapping[str, Series], places: Sequence[int]) -> str:
    whole = sum(sum(values.values()) for values in told.values()) or 1.0
    shares = (f"{label} {sum(values.values()) / whole:.0%}" for label, values in told.items())
    return f"Iterations {places[0]} to {places[-1]} together: {', '.join(shares)}."
