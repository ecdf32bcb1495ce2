"""What a rollout costs the driver and the buffer: rollouts a second of each part, and memory.

    python scripts/benchmark/driver.py [--rollouts 10000 100000 1000000] [overrides ...]

The real scheduler orders groups from an engine that makes up answers of 8 tokens; the real archive takes them
in this process, without Ray, and its rows are drawn as optimizer steps draw them. No answer is judged and
nothing is learned. Each number of rollouts is tried in three ways, each in a process of its own:

* `many`: iterations of 2,048 prompts x 4 answers, synchronous, as a long run has them;
* `one`: all of it is one iteration, so that all kept rows are held at once;
* `async`: the same as `many`, asynchronous.

Columns are CPU microseconds for each rollout, but the last ones: none may grow with the number of rollouts.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ParamSpec, TypeVar

sys.path.insert(0, str(Path(__file__).parents[2]))

import hydra
import psutil
import torch
from tensordict import TensorDictBase

from expert_iteration.archive import Archive
from expert_iteration.batching import group_rows
from expert_iteration.checks import from_hydra
from expert_iteration.config import RunConfig
from expert_iteration.launch import config_folder, register
from expert_iteration.laws import laws_of
from expert_iteration.ledger import summary
from expert_iteration.prompts import PromptSet
from expert_iteration.scheduler import Backlog, Progress, Scheduler
from expert_iteration.traces import fingerprint
from expert_iteration.types import Finish, Group, Outcome, Prompt, Rollout, Ticket, Verdict
from expert_iteration.visits import Visits

P = ParamSpec("P")
T = TypeVar("T")
ROOT = Path(__file__).parents[2]
PROMPTS, ANSWERS = 2048, 4
TOKENS = 8
QUESTIONS = 20_000
"""Different prompts, at most."""
WAYS = ("many", "one", "async")
PARTS = ("missing", "tickets", "rows", "add", "snapshot", "draw", "book", "save", "scheduler")
SHARED = "experiment=demo placement=cpu epochs=3 batch_size=64 logger.tokens=false"


def overrides_of(way: str, rollouts: int) -> list[str]:
    groups = max(1, rollouts // ANSWERS)
    prompts = groups if way == "one" else min(groups, PROMPTS)
    sizes = [f"prompts_per_iteration={prompts}", f"rollouts_per_prompt={ANSWERS}"]
    mode = "mode=async mode.prompts_per_request=32 mode.publish_every=64" if way == "async" else "mode=sync"
    return [*SHARED.split(), *mode.split(), *sizes, f"iterations={-(-groups // prompts)}"]


class Meter:
    """Seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, part: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        begun = time.process_time()
        try:
            return work(*args, **kwargs)
        finally:
            self.seconds[part] += time.process_time() - begun


class MadeUp:
    """Stages with a real archive and real tickets, and nothing else."""

    def __init__(self, config: RunConfig, folder: Path, meter: Meter, progress: Progress) -> None:
        self.archive = Archive(config, folder)
        self.most = 0
        """Rows held at once."""
        self._config = config
        self._meter = meter
        self._progress = progress
        groups = config.prompts_per_iteration * config.iterations
        questions = [prompt_of(number) for number in range(min(groups, QUESTIONS))]
        self._visits = Visits(config, PromptSet(tuple(questions), len(questions), 0))

    async def collect(self, group_ids: Sequence[int]) -> None:
        self._meter.timed("missing", self.archive.missing, group_ids)
        for group_id in group_ids:
            ticket = self._meter.timed("tickets", self._visits.ticket, group_id)
            group = group_of(ticket, self._progress.version)
            rows = self._meter.timed("rows", rows_of, group)
            self._meter.timed("add", self.archive.add, [(group, rows)])
            await asyncio.sleep(0)

    async def backlog(self) -> Backlog:
        seen = self._meter.timed("snapshot", self.archive.snapshot)
        self.most = max(self.most, seen.live)
        return Backlog(seen.uses_left, seen.steps_left, seen.consumed)

    async def learn(self, steps: int, _: tuple[float, float]) -> None:
        for step in range(self._progress.steps, self._progress.steps + steps):
            self._meter.timed("draw", self.archive.draw, step, 0, 1)
            await asyncio.sleep(0)

    async def publish(self, version: int) -> None:
        self._meter.timed("add", self.archive.set_version, version)

    async def finish_iteration(self, iteration: int) -> None:
        self._meter.timed("book", self.archive.book, iteration)
        self._meter.timed("book", summary, self.archive.ledger(), iteration)


def prompt_of(number: int) -> Prompt:
    text = f"What is {number} + 1?"
    return Prompt(number, text, str(number + 1), text, tuple(range(TOKENS)), "r1_zero", task="made up")


def group_of(ticket: Ticket, version: int) -> Group:
    """One answer in two is right."""
    rollouts = tuple(
        Rollout(i, tuple(range(i, i + TOKENS)), (-0.5,) * TOKENS, f"{i}", Finish.STOP, version, version)
        for i in range(ANSWERS)
    )
    outcomes = (Outcome.CORRECT, Outcome.WRONG)
    verdicts = tuple(Verdict(outcomes[i % 2], "made up", 1.0) for i in range(ANSWERS))
    return Group(ticket, rollouts, verdicts, tuple(float(one.success) for one in verdicts))


def rows_of(group: Group) -> Sequence[TensorDictBase]:
    fingerprints = [fingerprint(rollout.text) for rollout in group.rollouts]
    return group_rows(group, fingerprints, dict.fromkeys(range(len(group.rollouts)), 1.0))


def resident() -> int:
    return psutil.Process().memory_info().rss


def measure(way: str, rollouts: int, overrides: Sequence[str]) -> dict[str, float]:
    """One run in this process: seconds by part, and memory in bytes."""
    # an idle thread of torch's spins, which would count as work
    torch.set_num_threads(1)
    register()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = from_hydra(
            hydra.compose("train", [*overrides_of(way, rollouts), *overrides]), gpus=sys.maxsize
        )
    laws, meter, progress = laws_of(config), Meter(), Progress()
    with TemporaryDirectory() as scratch:
        stages = MadeUp(config, Path(scratch), meter, progress)
        before, begun = resident(), time.process_time()
        asyncio.run(Scheduler(laws, stages, progress, range(laws.groups)).run())
        whole = time.process_time() - begun
        after = resident()
        meter.timed("save", stages.archive.save, Path(scratch))
    known = sum(meter.seconds[part] for part in PARTS if part != "save")
    meter.seconds["scheduler"] = whole - known
    done = laws.groups * ANSWERS
    parts = {part: meter.seconds[part] / done * 1e6 for part in PARTS}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "rollouts": done,
        **parts,
        "rate": done / whole,
        "grown": after - before,
        "peak": peak - before,
        "held": stages.most,
    }


def table(found: Sequence[tuple[str, dict[str, float]]]) -> str:
    head = ["way", "rollouts", *PARTS, "rollouts/s", "rows held", "grown, MiB", "peak, MiB"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for way, row in found:
        cells = [way, f"{row['rollouts']:,.0f}", *(f"{row[part]:.1f}" for part in PARTS)]
        cells += [
            f"{row['rate']:,.0f}",
            f"{row['held']:,.0f}",
            f"{row['grown'] / 2**20:,.0f}",
            f"{row['peak'] / 2**20:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rollouts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument(
        "--inside", action="store_true", help="measure the first of each here, and print JSON"
    )
    options, overrides = parser.parse_known_args()
    if options.inside:
        sys.stdout.write(json.dumps(measure(options.ways[0], options.rollouts[0], overrides)))
        return
    found = []
    for way in options.ways:
        for rollouts in options.rollouts:
            asked = ["--inside", "--ways", way, "--rollouts", str(rollouts), *overrides]
            command = [sys.executable, __file__, *asked]
            output = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout
            found.append((way, json.loads(output)))
            sys.stderr.write(f"{table(found[-1:]).splitlines()[-1]}\n")
    sys.stdout.write(f"{table(found)}\n")


if __name__ == "__main__":
    main()
