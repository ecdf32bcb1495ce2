"""Accuracy by iteration of one or several runs, with 95% bands.

    python scripts/plot.py outputs/run --output curve.png
    python scripts/plot.py sync_0 sync_1 async_0 async_1 --labels sync sync async async --output curve.pdf

Runs with the same label are seeds of one setting: thin lines, and their mean as a thick one. The band
is Wilson's interval for the number of evaluation questions. Seeds answer the same questions, so the
band of a mean is not narrower than that of one run.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from expert_iteration.reporting.jsonl import read_events
from expert_iteration.reporting.statistics import wilson
from expert_iteration.reports.look import MARKERS, OKABE_ITO, pictures

PANELS = {"eval/greedy": "greedy", "eval/pass@1": "sampled (pass@1)"}

Curve: TypeAlias = dict[int, tuple[float, int]]
"""Iteration -> (accuracy, questions)."""


def read_curve(run: Path, key: str) -> Curve:
    """The last value of `key` in every iteration of a run.

    Raises:
        SystemExit: if the folder holds no metrics.jsonl.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise SystemExit(f"{path} does not exist; name a run folder, as in outputs/<run>.")
    curve: Curve = {}
    for event in read_events(path):
        share, n = event.get(key), event.get("eval/n")
        if share is not None:
            curve[int(event["iteration"] or 0)] = (share, round(n or 0))
    return dict(sorted(curve.items()))


def read_curves(runs: Mapping[str, Sequence[Path]], key: str) -> dict[str, list[Curve]]:
    """The curves of every label, without those of runs that never measured `key`."""
    return {
        label: [curve for run in folders if (curve := read_curve(run, key))]
        for label, folders in runs.items()
    }


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds of the iterations that all of them have reached."""
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    return {
        iteration: (
            sum(curve[iteration][0] for curve in curves) / len(curves),
            min(curve[iteration][1] for curve in curves),
        )
        for iteration in common
    }


def draw_panel(axes: Axes, settings: Mapping[str, Sequence[Curve]], title: str) -> None:
    """All settings under one measure of accuracy."""
    for number, (label, curves) in enumerate(settings.items()):
        if curves:
            draw_setting(axes, curves, label, number)
    axes.set_title(title)
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def draw_setting(axes: Axes, curves: Sequence[Curve], label: str, number: int) -> None:
    """One setting: its seeds, their mean and the band of the mean."""
    color, marker = OKABE_ITO[number % len(OKABE_ITO)], MARKERS[number % len(MARKERS)]
    if len(curves) > 1:
        label = f"{label} (mean of {len(curves)})"
        for curve in curves:
            axes.plot(list(curve), [share for share, _ in curve.values()], color=color, lw=0.7, alpha=0.5)
    mean = mean_curve(curves)
    shares = [share for share, _ in mean.values()]
    axes.plot(list(mean), shares, color=color, lw=1.8, marker=marker, ms=4, label=label)
    bands = {iteration: wilson(share, n) for iteration, (share, n) in mean.items() if n}
    lows, highs = [low for low, _ in bands.values()], [high for _, high in bands.values()]
    axes.fill_between(list(bands), lows, highs, color=color, alpha=0.15, lw=0)


def plot(runs: Mapping[str, Sequence[Path]], output: Path) -> None:
    """Draw the runs of every label into `output`; its suffix decides the format.

    Raises:
        SystemExit: if no run holds an evaluation.
    """
    panels = {key: read_curves(runs, key) for key in PANELS}
    shown = [key for key, curves in panels.items() if any(curves.values())]
    if not shown:
        raise SystemExit(f"no evaluation in these runs: metrics.jsonl holds none of {', '.join(PANELS)}.")
    with pictures():
        figure = Figure(figsize=(3.4 * len(shown) + 0.4, 2.9), layout="constrained")
        row = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, key in zip(row, shown, strict=True):
            draw_panel(axes, panels[key], PANELS[key])
        row[0].set_ylabel("accuracy (95% band)")
        row[0].legend()
        figure.savefig(output, dpi=200)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder with a metrics.jsonl")
    parser.add_argument("--output", type=Path, default=Path("curve.png"), help="PNG, PDF or SVG file")
    parser.add_argument("--labels", nargs="+", help="one for each run; equal labels are seeds of one setting")
    options = parser.parse_args(arguments)
    labels = options.labels or [run.name for run in options.runs]
    if len(labels) != len(options.runs):
        parser.error(f"--labels: {len(labels)} labels for {len(options.runs)} runs; give one for each run.")
    runs: dict[str, list[Path]] = defaultdict(list)
    for label, run in zip(labels, options.runs, strict=True):
        runs[label].append(run)
    plot(runs, options.output)


if __name__ == "__main__":
    main()
