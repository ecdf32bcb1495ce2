"""How busy 1, 2 and 4 engines are while they sample one iteration: portions of one queue, or a share each.

    python scripts/benchmark/dispatch.py [--groups 2048] [--answers 8] [--at-once 256] [--mean 400]

The dispatcher is the real one. The engines are not: each makes a step of all answers that it works on, at
most `--at-once`, and an answer takes as many steps as it has tokens. Lengths are lognormal, with a standard
deviation of 0.8 in their logarithm (`--spread`), and cut at eight times their mean. Time is simulated, so
that nothing depends on this machine. The cases:

* even: questions in random order, engines of one speed
* sorted: later questions take longer answers, three times the mean at the end
* slow engine: the first engine takes half as long again for each step

Printed for each is the smallest share of the time in which an engine had work: of the time until the last of
all answers began (`busy`), and of all time (`overall`), at whose end nothing is left to be shared. Then the
time that the iteration took; `ratio` is that of the times.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import ceil, exp

from expert_iteration.config import AlgorithmConfig, InferPlacement, PlacementConfig, RunConfig
from expert_iteration.dispatch import dispatch_of
from expert_iteration.room import LOOK_EVERY, Room

CASES = ("even", "sorted", "slow engine")
REPLICAS = (1, 2, 4)
STEP = 0.02
"""Seconds in which an engine makes a token of each of its answers."""
CALL = 0.01
"""Seconds that a call to a collector takes to reach it."""
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

    def __init__(self, at_once: int, step: float) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._step = step
        self._running = 0
        self._since = 0.0
        self.unfinished = 0
        """Answers that it works on, or has before it."""
        self.last_began = 0.0
        self._spans: list[tuple[float, float]] = []
        """When it had work."""

    def busy_until(self, end: float) -> float:
        """Share of the time from 0 to `end` in which it had work."""
        return sum(max(0.0, min(last, end) - first) for first, last in self._spans) / end

    async def sample(self, groups: Sequence[Group], arrived: Callable[[], None] = lambda: None) -> None:
        lengths = [tokens for group in groups for tokens in group]
        self.unfinished += len(lengths)
        arrived()
        async with asyncio.TaskGroup() as tasks:
            for tokens in lengths:
                tasks.create_task(self._answer(tokens))

    async def _answer(self, tokens: int) -> None:
        clock = asyncio.get_running_loop().time
        async with self._places:
            self.last_began = clock()
            if self._running == 0:
                self._since = clock()
            self._running += 1
            await asyncio.sleep(tokens * self._step)
            self._running -= 1
            if self._running == 0:
                self._spans.append((self._since, clock()))
        self.unfinished -= 1


@dataclass(frozen=True)
class Setting:
    groups: int
    answers: int
    at_once: int
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

    def run(self, replicas: int) -> RunConfig:
        """One with these numbers."""
        return RunConfig(
            iterations=1,
            prompts_per_iteration=self.groups,
            rollouts_per_prompt=self.answers,
            batch_size=1,
            algorithm=AlgorithmConfig(name="expert_iteration"),
            placement=PlacementConfig(infer=InferPlacement(replicas=replicas, max_num_seqs=self.at_once)),
        )


@dataclass(frozen=True)
class Outcome:
    seconds: float
    busy: list[float]
    """Share of the time, for each engine, in which it had work, until the last of all answers began."""
    overall: list[float]
    """The same until the end."""


Way = Callable[[Setting, Sequence[Group], Sequence[Engine]], Awaitable[None]]


async def portions(setting: Setting, groups: Sequence[Group], engines: Sequence[Engine]) -> None:
    rooms = [Room(lambda engine=engine: engine.unfinished, setting.at_once) for engine in engines]  # type: ignore[misc]

    async def await_room(number: int) -> None:
        await asyncio.sleep(CALL)
        while not rooms[number].is_there():
            await asyncio.sleep(LOOK_EVERY)

    dispatch = dispatch_of(setting.run(len(engines)), await_room)

    async def serve(portion: Sequence[Group]) -> None:
        async with dispatch.placed(len(portion)) as number:
            with rooms[number].taken(sum(map(len, portion))) as arrived:
                await asyncio.sleep(CALL)
                await engines[number].sample(portion, arrived)
            await asyncio.sleep(STORING)

    async with asyncio.TaskGroup() as tasks:
        for portion in dispatch.portions(groups):
            tasks.create_task(serve(portion))
    dispatch.close()


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
    engines = [Engine(setting.at_once, step) for step in steps]
    await way(setting, setting.lengths(case), engines)
    seconds = asyncio.get_running_loop().time()
    began = max(engine.last_began for engine in engines)
    return Outcome(
        seconds,
        [engine.busy_until(began) for engine in engines],
        [engine.busy_until(seconds) for engine in engines],
    )


def row(outcome: Outcome) -> str:
    return f"{min(outcome.busy):7.3f} {min(outcome.overall):7.3f} {outcome.seconds:8.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=2048)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--at-once", type=int, default=256)
    parser.add_argument("--mean", type=float, default=400.0)
    parser.add_argument("--spread", type=float, default=0.8)
    setting = Setting(**vars(parser.parse_args()))
    sys.stdout.write(f"{'':20} {'a share each':>23}   {'portions':>23}\n")
    columns = "   ".join(["   busy overall  seconds"] * 2)
    sys.stdout.write(f"{'case':12} engines {columns}   ratio\n")
    for case in CASES:
        for replicas in REPLICAS:
            outcomes = [simulate(setting, case, replicas, way) for way in (shares, portions)]
            columns = "   ".join(map(row, outcomes))
            ratio = outcomes[1].seconds / outcomes[0].seconds
            sys.stdout.write(f"{case:12} {replicas:7} {columns}   {ratio:.3f}\n")


if __name__ == "__main__":
    main()
