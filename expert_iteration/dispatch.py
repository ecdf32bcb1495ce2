"""Which collector gets which groups: portions of one queue, so that none idles while work is left."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from math import ceil
from typing import TypeAlias, TypeVar

from expert_iteration.algorithms import Source, algorithm_of, answers_at_once
from expert_iteration.config import RunConfig
from expert_iteration.laws import laws_of

T = TypeVar("T")
Room: TypeAlias = Callable[[int], Awaitable[None]]
"""Returns when the engine of collector number i is about to run out of work."""

PORTIONS = 8
"""Portions that fill an engine, or that there are for each. More of them level the end of an iteration, and
cost more calls."""


class Dispatch:
    """Hands out portions in order, each to a collector whose engine has room.

    It is the engine that says so: how many answers it still works on cannot be told from the groups that are
    not back, as each of them waits for its longest answer.
    """

    def __init__(self, collectors: int, portion: int, room: Room, at_once: int = 1) -> None:
        """
        Args:
            portion: groups of one.
            room: a single collector gets whatever there is, and is not asked.
            at_once: answers that an engine works on at a time.
        """
        self._portion = portion
        self._at_once = at_once
        self._room = room
        self._held = [0] * collectors
        """Groups at each collector."""
        self._unasked = set(range(collectors))
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._answered: list[int] = []
        """Those of the asked that have said so."""
        self._answer = asyncio.Event()
        self._door, self._side_door = asyncio.Lock(), asyncio.Lock()

    def portions(self, groups: Sequence[T]) -> list[Sequence[T]]:
        return _cut(groups, self._portion)

    def questions(self, prompts: Sequence[T]) -> list[Sequence[T]]:
        """The portions of an evaluation, of which each question takes one answer."""
        collectors = len(self._held)
        return _cut(
            prompts, len(prompts) if collectors == 1 else _share(self._at_once, len(prompts) / collectors)
        )

    @asynccontextmanager
    async def placed(self, groups: int, is_evaluation: bool = False) -> AsyncIterator[int]:
        """Wait for room for `groups`, at most a portion. Who came first is served first.

        An evaluation, which the learner waits for, stands in a line of its own; both have their turns.

        Yields:
            the number of the collector that has them until the block ends.
        """
        async with self._side_door if is_evaluation else self._door:
            collector = await self._next()
            self._held[collector] += groups
        try:
            yield collector
        finally:
            self._held[collector] -= groups

    async def _next(self) -> int:
        """Of the collectors with room, the one with the fewest groups. All are asked, each once at a time."""
        if len(self._held) == 1:
            return 0
        while True:
            # again each time: the other line may have taken what there was
            while self._unasked:
                self._ask(self._unasked.pop())
            if self._answered:
                break
            self._answer.clear()
            await self._answer.wait()
        chosen = min(self._answered, key=lambda collector: self._held[collector])
        self._answered.remove(chosen)
        self._unasked.add(chosen)
        self._asked.pop(chosen).result()
        return chosen

    def _ask(self, collector: int) -> None:
        def answered(_: asyncio.Future[None]) -> None:
            self._answered.append(collector)
            self._answer.set()

        self._asked[collector] = asyncio.ensure_future(self._room(collector))
        self._asked[collector].add_done_callback(answered)

    def close(self) -> None:
        """Wait for no room any more."""
        for answer in self._asked.values():
            answer.cancel()


def dispatch_of(config: RunConfig, room: Room) -> Dispatch:
    """For the collectors of a run."""
    infer, order = config.placement.infer, laws_of(config).request_size
    if infer.replicas == 1:
        return Dispatch(1, order, room)
    answers = answers_at_once(config) if algorithm_of(config).source is Source.POLICY else 1
    share = _share(infer.max_num_seqs / answers, config.prompts_per_iteration / infer.replicas)
    return Dispatch(infer.replicas, min(order, share), room, infer.max_num_seqs)


def _share(at_once: float, each: float) -> int:
    """Size of a portion where an engine works on `at_once`, and `each` is what there is for every engine."""
    return ceil(min(at_once, each) / PORTIONS)


def _cut(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[first : first + size] for first in range(0, len(items), max(1, size))]
