"""Which collector gets which groups: portions of one queue, so that none idles while work is left."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from math import ceil
from typing import TypeAlias, TypeVar

from expert_iteration.algorithms import Source, algorithm_of
from expert_iteration.config import RunConfig
from expert_iteration.laws import laws_of

T = TypeVar("T")
Room: TypeAlias = Callable[[int], Awaitable[None]]
"""Returns when the engine of collector number i is about to run out of work."""

PORTIONS = 8
"""Portions that fill an engine. More of them level the end of an iteration better, and cost more calls."""


class Dispatch:
    """Hands out portions in order, each to a collector whose engine has room.

    It is the engine that says so: how many answers it still works on cannot be told from the groups that are
    not back, as each of them waits for its longest answer.
    """

    def __init__(self, collectors: int, portion: int, room: Room) -> None:
        """`portion` is in groups. A single collector gets whatever there is, and is asked for no room."""
        self._portion = portion
        self._room = room
        self._held = [0] * collectors
        """Groups at each collector."""
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._door = asyncio.Lock()

    def portions(self, groups: Sequence[T]) -> list[Sequence[T]]:
        return [groups[first : first + self._portion] for first in range(0, len(groups), self._portion)]

    @asynccontextmanager
    async def placed(self, groups: int) -> AsyncIterator[int]:
        """Wait for room for `groups`, at most a portion. Who came first is served first.

        Yields:
            the number of the collector that has them until the block ends.
        """
        async with self._door:
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
        for collector in range(len(self._held)):
            if collector not in self._asked:
                self._asked[collector] = asyncio.ensure_future(self._room(collector))
        await asyncio.wait(self._asked.values(), return_when=asyncio.FIRST_COMPLETED)
        free = [collector for collector, answer in self._asked.items() if answer.done()]
        chosen = min(free, key=lambda collector: self._held[collector])
        self._asked.pop(chosen).result()
        return chosen

    def close(self) -> None:
        """Wait for no room any more."""
        for answer in self._asked.values():
            answer.cancel()


def dispatch_of(config: RunConfig, room: Room) -> Dispatch:
    """For the collectors of a run."""
    answers = config.rollouts_per_prompt if algorithm_of(config).source is Source.POLICY else 1
    infer, order = config.placement.infer, laws_of(config).request_size
    share = ceil(infer.max_num_seqs / (answers * PORTIONS))
    return Dispatch(infer.replicas, order if infer.replicas == 1 else min(order, share), room)
