"""How long the parts of a run take, fitted to what a finished one took."""

import heapq
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from expert_iteration.checks import from_hydra
from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.planning.measured import odds_by_iteration
from expert_iteration.reports.runs import NoRun, RunFiles
from expert_iteration.rounds import rounds_of
from expert_iteration.selection import Fate
from expert_iteration.simulation.lengths import Lengths, measured
from expert_iteration.simulation.rates import Rates
from expert_iteration.simulation.workload import Workload, expected


@dataclass(frozen=True)
class Span:
    """A row of timeline/."""

    stage: str
    iteration: int | None
    seconds: float


@dataclass(frozen=True)
class Sampled:
    """Some sampling of one engine, and what it took."""

    steps: int
    """Decode steps."""
    tokens: int
    prompts: int
    seconds: float


@dataclass(frozen=True)
class FinishedRun:
    """A run folder, as far as time is concerned."""

    files: RunFiles

    @staticmethod
    def of(folder: Path) -> "FinishedRun":
        """
        Raises:
            ConfigError: the folder holds no run that has finished an iteration.
        """
        try:
            run = FinishedRun(RunFiles.of(folder))
        except NoRun as error:
            raise ConfigError(str(error)) from None
        if not run.seconds or not run.spans("driver"):
            raise ConfigError(
                f"{folder} has no iteration with a timeline; name the folder of a finished run."
            )
        return run

    @cached_property
    def config(self) -> RunConfig:
        """What the run was told to do, for a machine with any number of GPUs.

        Raises:
            ConfigError: it was told so by another version, whose keys are not those of this one.
        """
        schema = OmegaConf.structured(RunConfig)
        try:
            composed = OmegaConf.merge(schema, OmegaConf.create(self.files.config))
        except OmegaConfBaseException as error:
            raise ConfigError(
                f"{self.files.folder} was composed by another version: {str(error).splitlines()[0]}; "
                "calibrate with a run of this one."
            ) from None
        assert isinstance(composed, DictConfig)
        return from_hydra(composed, gpus=sys.maxsize)

    @cached_property
    def seconds(self) -> list[float]:
        """Of each iteration, the first evaluation left out."""
        ends: dict[int, float] = {}
        for event in self.files.events:
            ends[int(event["iteration"] or 0)] = float(event["seconds"] or 0.0)
        times = [ends[number] for number in sorted(ends)]
        return [end - begin for begin, end in pairwise(times)]

    def spans(self, process: str) -> list[Span]:
        """What a process did, in order; none if the run had no such process."""
        path = self.files.folder / "timeline" / f"{process}.jsonl"
        rows: list[dict[str, Any]] = []
        if path.is_file():
            rows = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
        return [Span(row["stage"], row["iteration"], row["end"] - row["start"]) for row in rows]

    def total(self, process: str, *stages: str) -> float:
        """Seconds that a process spent on `stages`."""
        return sum(span.seconds for span in self.spans(process) if span.stage in stages)

    def phase(self, stage: str, iteration: int) -> float:
        return sum(
            span.seconds
            for span in self.spans("driver")
            if span.stage == stage and span.iteration == iteration
        )

    @cached_property
    def groups(self) -> dict[int, dict[int, list[int]]]:
        """Iteration -> group -> tokens of its answers."""
        found: dict[int, dict[int, list[int]]] = {}
        for row in self.files.rollouts():
            groups = found.setdefault(row["iteration"], {})
            groups.setdefault(row["group_id"], []).append(row["tokens"])
        return found

    @cached_property
    def kept(self) -> dict[int, list[int]]:
        """Iteration -> tokens of the answers that were trained on."""
        found: dict[int, list[int]] = {}
        for row in self.files.rollouts():
            if row["fate"] == str(Fate.KEPT):
                found.setdefault(row["iteration"], []).append(row["tokens"])
        return found

    def lengths(self, iteration: int) -> Lengths:
        return measured(list(chain.from_iterable(self.groups[iteration].values())))

    def workload(self, config: RunConfig) -> Workload:
        """What `config` would have to do if its answers were like those of this run, by iteration.

        Raises:
            ConfigError: the folder holds no rollouts.
        """
        odds = odds_by_iteration(self.files.folder, config.selection.duplicates)
        lengths = [(self.lengths(number), measured(self.kept.get(number, [1]))) for number in odds]
        return expected(config, list(odds.values()), lengths)


def rates_of(run: FinishedRun) -> Rates:
    """What the parts of a synchronous run took.

    Raises:
        ConfigError: the run was asynchronous, so that sampling was never measured by itself.
    """
    if run.config.mode.publish_every is not None:
        raise ConfigError(
            f"{run.files.folder} was asynchronous: what sampling takes by itself cannot be told from it; "
            "calibrate with a synchronous run."
        )
    step, answer, prompt = fitted(list(_observations(run)))
    prompt_tokens = _prompt_tokens(run)
    return Rates(
        step=step,
        answer=answer,
        floor=0.0,
        prompt=prompt,
        room=run.config.placement.infer.max_num_seqs,
        judge=_judge(run),
        score=_score(run, prompt_tokens),
        **_learning(run),
        publish=_mean(run, "publish", run.total("trainer_0", "verify")),
        save=_mean(run, "save"),
        prompt_tokens=prompt_tokens,
    )


def _observations(run: FinishedRun) -> Iterator[Sampled]:
    """Each collection and each evaluation but the first, during which the engine warmed up."""
    place = run.config.placement.infer
    for iteration, groups in run.groups.items():
        ordered = [groups[group_id] for group_id in sorted(groups)]
        yield _sampled(ordered, place.replicas, place.max_num_seqs, run.phase("collect", iteration))
        questions = int(run.files.by_iteration("eval/n").get(iteration, 0))
        if questions:
            lengths = run.lengths(iteration).tokens
            asked = [[lengths[i * len(lengths) // questions]] for i in range(questions)]
            rounds = len(rounds_of(run.config))
            seconds = run.phase("evaluate", iteration) / rounds
            yield _sampled(asked, place.replicas, place.max_num_seqs, seconds)


def _sampled(groups: Sequence[Sequence[int]], replicas: int, room: int, seconds: float) -> Sampled:
    """As one of the replicas saw it."""
    share = groups[: -(-len(groups) // replicas)]
    lengths = list(chain.from_iterable(share))
    return Sampled(steps_of(lengths, room), sum(lengths), len(share), seconds)


def steps_of(lengths: Sequence[int], room: int) -> int:
    """Decode steps until answers of `lengths` have ended, `room` at a time."""
    ends = list(lengths[:room])
    heapq.heapify(ends)
    last = max(ends, default=0)
    for length in lengths[room:]:
        end = heapq.heapreplace(ends, ends[0] + length) + length
        last = max(last, end)
    return last


def fitted(observed: Sequence[Sampled]) -> tuple[float, float, float]:
    """Seconds of a decode step, of each answer in it and of each prompt, none of them negative.

    Relative errors are made small: short and long samplings count the same.
    """
    rows = [
        [value / one.seconds for value in (one.steps, one.tokens, one.prompts)]
        for one in observed
        if one.seconds
    ]
    best: tuple[float, list[float]] | None = None
    for chosen in ((0, 1, 2), (0, 1), (0, 2), (1, 2), (1,), (0,)):
        solution = _solve([[row[i] for i in chosen] for row in rows])
        if solution is None or min(solution) < 0:
            continue
        values = [0.0] * 3
        for i, value in zip(chosen, solution, strict=True):
            values[i] = value
        error = sum((sum(v * x for v, x in zip(values, row, strict=True)) - 1) ** 2 for row in rows)
        if best is None or error < best[0]:
            best = error, values
    assert best is not None, "a rate above 0 always fits best among those of tokens alone"
    return best[1][0], best[1][1], best[1][2]


def _solve(rows: Sequence[Sequence[float]]) -> list[float] | None:
    """The x with rows x = 1 in least squares, by elimination; None: the rows do not tell it."""
    size = len(rows[0])
    table = [
        [sum(row[i] * row[j] for row in rows) for j in range(size)] + [sum(row[i] for row in rows)]
        for i in range(size)
    ]
    smallest = 1e-12 * max(abs(value) for line in table for value in line)
    for i in range(size):
        pivot = max(range(i, size), key=lambda k, i=i: abs(table[k][i]))  # type: ignore[misc]
        if abs(table[pivot][i]) <= smallest:
            return None
        table[i], table[pivot] = table[pivot], table[i]
        table[i] = [value / table[i][i] for value in table[i]]
        for k in range(size):
            if k != i:
                table[k] = [a - table[k][i] * b for a, b in zip(table[k], table[i], strict=True)]
    return [row[size] for row in table]


def _learning(run: FinishedRun) -> dict[str, float]:
    """Seconds of a step, of a position, and of an order beside its steps."""
    ranks = run.config.placement.train.devices
    orders = [event for event in run.files.events if "train/tokens" in event]
    steps = int(run.files.events[-1]["step"] or 0)
    tokens = sum(float(event["train/tokens"] or 0) for event in orders)
    computing, drawing = run.total("trainer_0", "learn"), run.total("trainer_0", "draw")
    rest = run.total("driver", "learn") - computing - drawing
    return {
        "learn": drawing / max(1, steps),
        "position": computing / max(1.0, tokens / ranks),
        "order": max(0.0, rest) / max(1, len(orders)),
    }


def _prompt_tokens(run: FinishedRun) -> float:
    """Positions of a row that are no part of its answer."""
    orders = [event for event in run.files.events if "train/tokens" in event]
    steps = [int(event["step"] or 0) for event in orders]
    taken = [after - before for before, after in zip([0, *steps], steps, strict=False)]
    rows = sum(
        count * float(event["train/sequences"] or 0) for count, event in zip(taken, orders, strict=True)
    )
    answers = sum(
        count * float(event["train/response_tokens"] or 0) for count, event in zip(taken, orders, strict=True)
    )
    tokens = sum(float(event["train/tokens"] or 0) for event in orders)
    return (tokens - answers) / max(1.0, rows)


def _judge(run: FinishedRun) -> float:
    """The collector's seconds for each answer, the reference's left out."""
    seconds = run.total("collector_0", "grade", "score", "store") - run.total("reference_0", "score")
    answers = sum(len(lengths) for groups in run.groups.values() for lengths in groups.values())
    return max(0.0, seconds) * run.config.placement.infer.replicas / answers


def _score(run: FinishedRun, prompt_tokens: float) -> float:
    right = [row["tokens"] + prompt_tokens for row in run.files.rollouts() if row["verdict"] == "correct"]
    devices = run.config.placement.reference.devices
    return run.total("reference_0", "score") * devices / max(1.0, sum(right))


def _mean(run: FinishedRun, stage: str, less: float = 0.0) -> float:
    """Of the driver's phases of one name; `less` seconds of all of them are not counted."""
    found = [span.seconds for span in run.spans("driver") if span.stage == stage]
    return max(0.0, fmean(found) - less / len(found)) if found else 0.0
