"""Which collector gets which groups: portions of one queue, so that none idles while work is left."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import ceil
from typing import TypeVar

from expert_iteration.algorithms import Source, algorithm_of
from expert_iteration.config import RunConfig
from expert_iteration.laws import laws_of

T = TypeVar("T")

PORTIONS = 8
"""Portions that fill an engine. Each is a call of its own, and its groups grow scarce together: more of them
level the last minutes of an iteration better, and cost more calls."""
SPARE = 2
"""Further portions that a collector holds, ready when answers finish: an engine must not wait for a call."""


class Dispatch:
    """Seats for groups at the collectors. Who waits longest is seated first, where most seats are free."""

    def __init__(self, collectors: int, seats: int, portion: int) -> None:
        """`seats` are groups that one collector holds at a time; `portion` is what goes to it at once."""
        assert portion <= seats, "a portion that never finds room"
        self._seats = seats
        self._portion = portion
        self._taken = [0] * collectors
        self._door = asyncio.Lock()
        self._freed = asyncio.Event()

    def portions(self, groups: Sequence[T]) -> list[Sequence[T]]:
        return [groups[first : first + self._portion] for first in range(0, len(groups), self._portion)]

    @asynccontextmanager
    async def seated(self, groups: int) -> AsyncIterator[int]:
        """Wait for seats for `groups`, at most a portion, and hold them until the block ends.

        Yields:
            the number of the collector.
        """
        async with self._door:
            while min(self._taken) + groups > self._seats:
                self._freed.clear()
                await self._freed.wait()
            collector = self._taken.index(min(self._taken))
            self._taken[collector] += groups
        try:
            yield collector
        finally:
            self._taken[collector] -= groups
            self._freed.set()


def dispatch_of(config: RunConfig) -> Dispatch:
    """For the collectors of a run: enough seats to fill each engine, and some to spare.

    A single collector is given whole orders: nobody is there to share them with.
    """
    answers = config.rollouts_per_prompt if algorithm_of(config).source is Source.POLICY else 1
    infer = config.placement.infer
    order = laws_of(config).request_size
    portion = order if infer.replicas == 1 else min(order, ceil(infer.max_num_seqs / (answers * PORTIONS)))
    filled = ceil(infer.max_num_seqs / (answers * portion))
    return Dispatch(infer.replicas, (filled + SPARE) * portion, portion)
