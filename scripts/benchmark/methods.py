"""Every method on the demo: the same base model, questions, rollouts and, nearly, optimizer steps.

    python scripts/benchmark/methods.py --output outputs/methods [--seeds 0 1 2] [--jobs 2] [overrides ...]

Each run is `scripts/train.py placement=local` in a process of its own. Runs that are finished in the output
folder are not run again, so the command goes on where it stopped. The table goes to standard output, and
with it methods.json, methods.md and methods.png into the folder.

Every run visits 1,024 questions once, 256 an iteration, and takes four answers to each; `sft` has their
demonstrations instead, one each, which its row counts. What is equal is the rollouts. What a method keeps of
them differs, so `epochs` and `batch_size` are chosen such that most take 110 to 165 optimizer steps; the
table has the true number. Imitation keeps few answers and reads them three times; methods that keep every
correct answer, or all, read them once. `rest_em` and `star` train the initial model anew in each iteration,
so their last model has seen about a quarter of the steps. A*-PO's regression needs an estimate of each
question's value: eight more answers each, made before training and not part of its seconds.

The learning rate is the demo's own, 5e-4, but 2e-4 for `reinforce_with_baseline`, which collapses at 5e-4,
and for both kinds of A*-PO, which hardly learn at it. `loss.beta` of `a_star_po` is 0.1: with 0.001, its own,
which hardly ties the model to the initial one, a run of three epochs collapsed. These were looked for on
seed 100.

The interval is that of Student's t over the seeds, 95%. All seeds answer the same held-out questions, so it
says how much luck the training had, and not how the methods would stand on other questions.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeAlias

import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

sys.path.insert(0, str(Path(__file__).parents[2]))

from expert_iteration.reports.look import OKABE_ITO, pictures

ROOT = Path(__file__).parents[2]

SHARED = (
    "placement=local mode=sync task.limit=1024 iterations=4 prompts_per_iteration=256 rollouts_per_prompt=4 "
    "eval.every=0 eval.limit=300 checkpoint.every=0"
)
IMITATION = "batch_size=16 epochs=3"
VALUES = "values.path="
"""Override of the methods whose values are estimated before they train."""

METHODS = {
    "expert_iteration": f"algorithm=expert_iteration {IMITATION}",
    "rejection": f"algorithm=rejection {IMITATION}",
    "single_trace": f"algorithm=rejection selection=single_trace {IMITATION}",
    "rest_em": f"algorithm=rest_em {IMITATION}",
    "star": f"algorithm=star {IMITATION}",
    "raft": "algorithm=raft epochs=1 batch_size=16",
    "raft_pp": "algorithm=raft_pp epochs=1 batch_size=16",
    "minor_sft": f"algorithm=minor_sft {IMITATION}",
    "grpo": "algorithm=grpo epochs=1 batch_size=16",
    "reinforce_with_baseline": (
        "algorithm=grpo algorithm.variant=reinforce_with_baseline epochs=1 batch_size=16 "
        "optimizer.learning_rate=2e-4"
    ),
    "a_star_po": (
        f"algorithm=a_star_po {VALUES}{{folder}}_values.json epochs=1 batch_size=32 loss.beta=0.1 "
        "optimizer.learning_rate=2e-4"
    ),
    "a_star_po_policy_gradient": (
        "algorithm=a_star_po algorithm.variant=policy_gradient loss.kl_coefficient=0.3 "
        "epochs=1 batch_size=32 optimizer.learning_rate=2e-4"
    ),
    "sft": "algorithm=sft epochs=3 batch_size=20",
    "random": "algorithm=expert_iteration selection=random epochs=3 batch_size=20",
}
"""Method -> its overrides; `random`, the control, learns from one answer of each question, right or wrong."""

MEASURES = {"greedy": "eval/greedy", "sampled": "eval/pass@1"}
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Two-sided 95% quantiles of Student's t for 1 to 9 degrees of freedom."""

Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Job:
    """One run."""

    method: str
    seed: int
    folder: Path
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What one finished run says of itself."""

    method: str
    seed: int
    greedy: float
    """Share of the held-out questions, as the next three."""
    sampled: float
    greedy_before: float
    """Of the base model."""
    sampled_before: float
    kept: float
    """Share of the rollouts; for demonstrations, which are not sampled, of the questions."""
    steps: int
    rollouts: int
    estimation: int
    """Further rollouts, before training, for the values of the prompts."""
    seconds: float
    """Of training, start-up included."""


@dataclass(frozen=True)
class Row:
    """One method: means over its seeds, with 95% intervals where there are several."""

    method: str
    seeds: int
    greedy: float
    greedy_interval: Interval | None
    sampled: float
    sampled_interval: Interval | None
    kept: float
    steps: float
    rollouts: float
    estimation: float
    seconds: float


def jobs_of(options: argparse.Namespace, overrides: Sequence[str]) -> list[Job]:
    """Seed by seed, so that a comparison that is stopped leaves whole ones of fewer seeds."""
    return [
        job_of(method, seed, options.output, overrides)
        for seed in options.seeds
        for method in options.methods
    ]


def job_of(method: str, seed: int, output: Path, overrides: Sequence[str]) -> Job:
    folder = output / f"{method}_{seed}"
    own = METHODS[method].format(folder=folder).split()
    return Job(method, seed, folder, (*SHARED.split(), *own, f"seed={seed}", *overrides))


def run(job: Job) -> Outcome | None:
    """The outcome of `job`, which is trained unless its folder holds it; None, and a line, if that fails.

    Raises:
        SystemExit: the folder holds a run with other overrides.
    """
    if not finished(summary_of(job)):
        shutil.rmtree(job.folder, ignore_errors=True)
        try:
            train(job)
        except subprocess.CalledProcessError as error:
            print(f"{job.folder.name} failed ({error.returncode}): {error.stderr[-500:]}", file=sys.stderr)
            return None
    outcome = outcome_of(job)
    print(f"{job.method}, seed {job.seed}: greedy {outcome.greedy:.1%}", file=sys.stderr, flush=True)
    return outcome


def train(job: Job) -> None:
    """Run `job` in its folder, after the estimation of values if its method reads any."""
    if values_of(job) is not None:
        call("estimate_values.py", job, job.folder / "values")
    call("train.py", job, job.folder)


def call(script: str, job: Job, folder: Path) -> None:
    """Run a script of the project, on one core, with the overrides of `job`."""
    subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *job.overrides, f"hydra.run.dir={folder}"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )


def values_of(job: Job) -> Path | None:
    """The file of the values that `job` reads."""
    paths = [override.removeprefix(VALUES) for override in job.overrides if override.startswith(VALUES)]
    return Path(paths[-1]) if paths else None


def summary_of(job: Job) -> dict[str, Any] | None:
    """What the run in the folder of `job` said when it ended; None if there is none that did.

    Raises:
        SystemExit: there is one with other overrides.
    """
    file = job.folder / "summary.json"
    if not file.is_file():
        return None
    before = yaml.safe_load((job.folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8"))
    if before != list(job.overrides):
        raise SystemExit(
            f"{job.folder} was run with other overrides: {' '.join(before)}; name another --output."
        )
    return json.loads(file.read_text(encoding="utf-8"))


def finished(summary: Mapping[str, Any] | None) -> bool:
    """Whether a run ended by itself, and not by a signal."""
    return summary is not None and summary["exit_reason"] != "stopped"


def outcome_of(job: Job) -> Outcome:
    summary = json.loads((job.folder / "summary.json").read_text(encoding="utf-8"))
    totals = summary["totals"]
    return Outcome(
        job.method,
        job.seed,
        **{name: summary["end"][key] for name, key in MEASURES.items()},
        **{f"{name}_before": summary["start"][key] for name, key in MEASURES.items()},
        kept=totals["kept"] / (totals["rollouts"] or 1),
        steps=summary["steps"],
        rollouts=totals["rollouts"],
        estimation=samples_in(values_of(job)),
        seconds=summary["seconds"],
    )


def samples_in(values: Path | None) -> int:
    if values is None:
        return 0
    rewards = json.loads(values.read_text(encoding="utf-8"))["rewards"]
    return sum(map(len, rewards.values()))


def rows_of(outcomes: Sequence[Outcome]) -> list[Row]:
    """One row for each method that has finished runs, the best first."""
    by_method = {method: [one for one in outcomes if one.method == method] for method in METHODS}
    rows = [row_of(method, runs) for method, runs in by_method.items() if runs]
    return sorted(rows, key=lambda row: -row.greedy)


def row_of(method: str, runs: Sequence[Outcome]) -> Row:
    return Row(
        method,
        len(runs),
        fmean(one.greedy for one in runs),
        interval([one.greedy for one in runs]),
        fmean(one.sampled for one in runs),
        interval([one.sampled for one in runs]),
        fmean(one.kept for one in runs),
        fmean(one.steps for one in runs),
        fmean(one.rollouts for one in runs),
        fmean(one.estimation for one in runs),
        fmean(one.seconds for one in runs),
    )


def interval(values: Sequence[float]) -> Interval | None:
    """95% interval of a mean by Student's t, cut to [0, 1]; None for a single value."""
    if len(values) < 2:
        return None
    margin = T_95[len(values) - 2] * stdev(values) / math.sqrt(len(values))
    return max(0.0, fmean(values) - margin), min(1.0, fmean(values) + margin)


def table(rows: Sequence[Row]) -> str:
    """In Markdown; accuracies in per cent."""
    lines = [
        "| method | greedy | sampled | kept | optimizer steps | rollouts | seconds | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            row.method,
            percent(row.greedy, row.greedy_interval),
            percent(row.sampled, row.sampled_interval),
            f"{row.kept:.1%}",
            f"{row.steps:,.0f}",
            f"{row.rollouts:,.0f}" + (f" + {row.estimation:,.0f}" if row.estimation else ""),
            f"{row.seconds:.0f}",
            str(row.seeds),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def percent(share: float, bounds: Interval | None) -> str:
    return f"{share:.1%}" + (f" [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]" if bounds else "")


def draw(rows: Sequence[Row], outcomes: Sequence[Outcome], output: Path) -> None:
    """A dot for each seed, and the mean with its interval; the base model is the dashed line."""
    with pictures():
        figure = Figure(figsize=(7.2, 0.28 * len(rows) + 1.0), layout="constrained")
        panels = figure.subplots(1, len(MEASURES), sharey=True)
        for axes, measure in zip(panels, MEASURES, strict=True):
            draw_panel(axes, rows, outcomes, measure)
        panels[0].set_yticks(range(len(rows)), [row.method for row in rows])
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
        figure.savefig(output, dpi=200)


def draw_panel(axes: Axes, rows: Sequence[Row], outcomes: Sequence[Outcome], measure: str) -> None:
    for place, row in enumerate(rows):
        values = [getattr(one, measure) for one in outcomes if one.method == row.method]
        low, high = interval(values) or (values[0], values[0])
        axes.plot([low, high], [place, place], color=OKABE_ITO[0], lw=4.0, alpha=0.25, solid_capstyle="butt")
        axes.plot(values, [place] * len(values), "|", color=OKABE_ITO[0], ms=7, alpha=0.8)
        axes.plot([getattr(row, measure)], [place], "o", color=OKABE_ITO[0], ms=4.5)
    before = fmean(getattr(one, f"{measure}_before") for one in outcomes)
    axes.axvline(before, color="0.4", lw=1.0, ls="--")
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"{measure} accuracy (mean, seeds, 95%)")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def as_json(rows: Sequence[Row], outcomes: Sequence[Outcome]) -> Mapping[str, Any]:
    return {"rows": [asdict(row) for row in rows], "runs": [asdict(one) for one in outcomes]}


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs and of the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help=f"at most {len(T_95) + 1}")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, one core each")
    options, overrides = parser.parse_known_args()
    options.output = options.output.resolve()
    if len(options.seeds) > len(T_95) + 1:
        parser.error(f"--seeds: {len(options.seeds)} are too many; name at most {len(T_95) + 1}.")
    return options, overrides


def main() -> None:
    options, overrides = parse_arguments()
    jobs = jobs_of(options, overrides)
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = [outcome for outcome in pool.map(run, jobs) if outcome is not None]
    if not outcomes:
        raise SystemExit("no run finished; the lines above say why.")
    rows = rows_of(outcomes)
    (options.output / "methods.md").write_text(table(rows), encoding="utf-8")
    text = json.dumps(as_json(rows, outcomes), indent=2)
    (options.output / "methods.json").write_text(text + "\n", encoding="utf-8")
    draw(rows, outcomes, options.output / "methods.png")
    print(table(rows), end="")
    if len(outcomes) < len(jobs):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
