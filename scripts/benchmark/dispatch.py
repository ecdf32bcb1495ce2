"""How busy 1, 2 and 4 engines are while they sample one iteration: portions of one queue, or a share each.

    python scripts/benchmark/dispatch.py [--groups 512] [--answers 8] [--seats 256] [--mean 400] [--spread 0.8]

The dispatcher is the real one. The engines are not: each makes a step of all answers that it works on, at
most `--seats` of them, and an answer takes as many steps as it has tokens. Lengths are lognormal and cut at
eight times their mean. Time is simulated, so that nothing depends on this machine. The cases:

* even: questions in random order, engines of one speed
* sorted: later questions take longer answers, three times the mean at the end
* slow engine: the first engine takes half as long again for each step

Printed for each are the smallest share of the time in which an engine had work, the mean share of its seats
that were taken, and the time that the iteration took; `ratio` is that of the times.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import ceil, exp
from statistics import fmean

from expert_iteration.actors.dispatch import Dispatch, dispatch_of
from expert_iteration.config import AlgorithmConfig, InferPlacement, PlacementConfig, RunConfig

CASES = ("even", "sorted", "slow engine")
REPLICAS = (1, 2, 4)
STEP = 0.02
"""Seconds in which an engine makes a token of each of its answers."""
STORING = 0.2
"""Seconds from the last answer of a portion until its collector has given it away."""
LONGEST = 8
"""Times the mean."""

Group = Sequence[int]
"""Tokens of each answer."""


class SimulatedTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next appointment as soon as nothing else is left to do."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Engine:
    """Takes simulated time for answers, and keeps account of it."""

    def __init__(self, seats: int, step: float) -> None:
        self._seats = asyncio.Semaphore(seats)
        self._step = step
        self._running = 0
        self._since = 0.0
        self.working = 0.0
        """Seconds with at least one answer."""
        self.answering = 0.0
        """Seconds times answers."""

    async def sample(self, groups: Sequence[Group]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for tokens in (tokens for group in groups for tokens in group):
                tasks.create_task(self._answer(tokens))

    async def _answer(self, tokens: int) -> None:
        async with self._seats:
            self._count(1)
            await asyncio.sleep(tokens * self._step)
            self._count(-1)

    def _count(self, change: int) -> None:
        now = asyncio.get_running_loop().time()
        self.working += (now - self._since) * (self._running > 0)
        self.answering += (now - self._since) * self._running
        self._since, self._running = now, self._running + change


@dataclass(frozen=True)
class Setting:
    groups: int
    answers: int
    seats: int
    mean: float
    """Tokens of an answer."""
    spread: float
    """Standard deviation of the logarithm of its length."""

    def lengths(self, case: str) -> list[Group]:
        """The answers to every question, the same for any number of engines."""
        chance = random.Random(case)
        return [
            [self._length(chance, number if case == "sorted" else None) for _ in range(self.answers)]
            for number in range(self.groups)
        ]

    def _length(self, chance: random.Random, place: int | None) -> int:
        mean = self.mean if place is None else self.mean * (0.5 + 2.5 * place / self.groups)
        drawn = chance.lognormvariate(0, self.spread) / exp(self.spread**2 / 2)
        return ceil(mean * min(drawn, LONGEST))

    def dispatch(self, replicas: int) -> Dispatch:
        """That of a run with these numbers."""
        infer = InferPlacement(replicas=replicas, max_num_seqs=self.seats)
        return dispatch_of(
            RunConfig(
                iterations=1,
                prompts_per_iteration=self.groups,
                rollouts_per_prompt=self.answers,
                batch_size=1,
                algorithm=AlgorithmConfig(name="expert_iteration"),
                placement=PlacementConfig(infer=infer),
            )
        )


@dataclass(frozen=True)
class Outcome:
    seconds: float
    busy: list[float]
    """Share of the time in which each engine had work."""
    filled: float
    """Mean share of seats that were taken."""


Way = Callable[[Setting, Sequence[Group], Sequence[Engine]], Awaitable[None]]


async def portions(setting: Setting, groups: Sequence[Group], engines: Sequence[Engine]) -> None:
    dispatch = setting.dispatch(len(engines))

    async def serve(portion: Sequence[Group]) -> None:
        async with dispatch.seated(len(portion)) as number:
            await engines[number].sample(portion)
            await asyncio.sleep(STORING)

    async with asyncio.TaskGroup() as tasks:
        for portion in dispatch.portions(groups):
            tasks.create_task(serve(portion))


async def shares(_: Setting, groups: Sequence[Group], engines: Sequence[Engine]) -> None:
    share = ceil(len(groups) / len(engines))
    async with asyncio.TaskGroup() as tasks:
        for number, engine in enumerate(engines):
            tasks.create_task(engine.sample(groups[number * share : (number + 1) * share]))
    await asyncio.sleep(STORING)


def simulate(setting: Setting, case: str, replicas: int, way: Way) -> Outcome:
    with asyncio.Runner(loop_factory=SimulatedTime) as runner:
        return runner.run(_simulate(setting, case, replicas, way))


async def _simulate(setting: Setting, case: str, replicas: int, way: Way) -> Outcome:
    steps = [STEP * (1.5 if case == "slow engine" and number == 0 else 1) for number in range(replicas)]
    engines = [Engine(setting.seats, step) for step in steps]
    await way(setting, setting.lengths(case), engines)
    seconds = asyncio.get_running_loop().time()
    return Outcome(
        seconds,
        [engine.working / seconds for engine in engines],
        fmean(engine.answering / seconds / setting.seats for engine in engines),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=512)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--seats", type=int, default=256)
    parser.add_argument("--mean", type=float, default=400.0)
    parser.add_argument("--spread", type=float, default=0.8)
    setting = Setting(**vars(parser.parse_args()))
    sys.stdout.write(
        f"{'case':12} {'engines':>7}   {'a share each: busy  filled  seconds':>36}   "
        f"{'portions: busy  filled  seconds':>32}   ratio\n"
    )
    for case in CASES:
        for replicas in REPLICAS:
            fixed, queued = (simulate(setting, case, replicas, way) for way in (shares, portions))
            sys.stdout.write(
                f"{case:12} {replicas:7}   {min(fixed.busy):20.3f} {fixed.filled:7.3f} {fixed.seconds:8.1f}   "
                f"{min(queued.busy):15.3f} {queued.filled:7.3f} {queued.seconds:8.1f}   "
                f"{queued.seconds / fixed.seconds:.3f}\n"
            )


if __name__ == "__main__":
    main()
