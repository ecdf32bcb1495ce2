"""Rollouts until the demo answers 85% of its held-out questions, by the way its prompts are drawn.

    python scripts/benchmark/frontier.py --output outputs/frontier [--seeds 9 10 11] [--jobs 2] [overrides]

Each run is `scripts/train.py placement=local` in a process of its own, which has 2,048 questions and visits
128 of them in an iteration, with up to four answers each. It is evaluated after every iteration, and told to
stop once an evaluation reaches the target; a run that gives up counts with all its rollouts, as a lower
bound. Rollouts are those that were sampled (`rollout/count`): with `selection.top_k=1`, which is set unless
an override says otherwise, the frontier asks for an answer at a time, until one is right.
All held-out questions are asked: with the demo's 300, accuracy goes up and down by 2 points between
80 and 85%, and it is luck which evaluation is the first to reach the target.
Runs in the output folder that have reached the target, or given up, are not run again.

The ratio is that of the medians over the seeds.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

from expert_iteration.demo.problems import HELD_OUT_SIZE
from expert_iteration.reporting.jsonl import read_events
from scripts.benchmark.methods import ROOT, Job, finished, summary_of

STRATEGIES = ("uniform", "frontier")
PROMPTS, ROLLOUTS = 128, 4
SHARED = (
    "placement=local mode=sync task.limit=2048 "
    f"prompts_per_iteration={PROMPTS} rollouts_per_prompt={ROLLOUTS} "
    "selection.top_k=1 epochs=3 batch_size=16 eval.every=1 checkpoint.every=0 "
    f"eval.limit={HELD_OUT_SIZE}"
)
LOOK_EVERY = 0.5
"""Seconds between looks at the metrics of a run."""


@dataclass(frozen=True)
class Outcome:
    strategy: str
    seed: int
    rollouts: int
    """Sampled for training until the target was reached, or in all."""
    reached: bool


def jobs_of(options: argparse.Namespace, overrides: Sequence[str]) -> list[Job]:
    return [
        Job(
            strategy,
            seed,
            options.output / f"{strategy}_{seed}",
            (
                *SHARED.split(),
                f"iterations={options.iterations}",
                f"prompts.strategy={strategy}",
                f"seed={seed}",
                *overrides,
            ),
        )
        for seed in options.seeds
        for strategy in STRATEGIES
    ]


def run(job: Job, target: float) -> Outcome:
    """Train `job` until it reaches `target`, unless its folder holds a run that did, or that gave up.

    Raises:
        CalledProcessError: the run failed.
        SystemExit: the folder holds a run with other overrides.
    """
    if not (finished(summary_of(job)) or progress_of(job.folder, target)[1]):
        shutil.rmtree(job.folder, ignore_errors=True)
        train(job, target)
    outcome = Outcome(job.method, job.seed, *progress_of(job.folder, target))
    print(describe(outcome, target), file=sys.stderr, flush=True)
    return outcome


def train(job: Job, target: float) -> None:
    """One run, ended by SIGTERM, which saves and closes it, once an evaluation reaches `target`."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *job.overrides]
    with subprocess.Popen(
        [*command, f"hydra.run.dir={job.folder}"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    ) as process:
        told = False
        while process.poll() is None:
            time.sleep(LOOK_EVERY)
            if not told and progress_of(job.folder, target)[1]:
                process.send_signal(signal.SIGTERM)
                told = True
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def progress_of(folder: Path, target: float) -> tuple[int, bool]:
    """Rollouts sampled until the first evaluation that reaches `target`, or so far; whether one does."""
    metrics = folder / "metrics.jsonl"
    rollouts = 0
    for event in read_events(metrics) if metrics.is_file() else []:
        rollouts += int(event.get("rollout/count") or 0)
        if (event.get("eval/greedy") or 0.0) >= target:
            return rollouts, True
    return rollouts, False


def describe(outcome: Outcome, target: float) -> str:
    bound = "" if outcome.reached else f", {target:.0%} not reached"
    return f"{outcome.strategy}, seed {outcome.seed}: {outcome.rollouts:,} rollouts{bound}"


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[9, 10, 11])
    parser.add_argument("--target", type=float, default=0.85, help="greedy accuracy to reach")
    parser.add_argument("--iterations", type=int, default=24, help="at which a run gives up")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, one core each")
    options, overrides = parser.parse_known_args()
    options.output = options.output.resolve()
    return options, overrides


def main() -> None:
    options, overrides = parse_arguments()
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(lambda job: run(job, options.target), jobs_of(options, overrides)))
    medians = {}
    for strategy in STRATEGIES:
        rollouts = [one.rollouts for one in outcomes if one.strategy == strategy]
        medians[strategy] = median(rollouts)
        each = ", ".join(f"{count:,}" for count in rollouts)
        print(f"{strategy:9} rollouts to {options.target:.0%}: {each}; median {medians[strategy]:,.0f}")
    ratio = medians["frontier"] / medians["uniform"]
    misses = sum(not one.reached for one in outcomes)
    print(f"frontier / uniform: {ratio:.2f}" + (f", {misses} runs gave up" if misses else ""))


if __name__ == "__main__":
    main()
