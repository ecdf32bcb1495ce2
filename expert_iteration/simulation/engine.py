"""An engine on paper: it batches continuously, and a decode step takes as long as the batch says."""

import asyncio
import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from expert_iteration.room import enough
from expert_iteration.simulation.rates import Rates


@dataclass
class Ordered:
    """The answers to one prompt, on their way."""

    lengths: Sequence[int]
    done: "asyncio.Queue[Ordered]"
    """Where it goes when its last answer has ended."""
    group_id: int = -1
    """-1: it is asked for an evaluation."""
    left: int = 0
    """Answers that have not ended."""
    begun: bool = False
    """Whether its prompt is in the cache."""


class SimulatedEngine:
    """One replica. It looks up every `stride` tokens, and lengths are rounded to as many."""

    def __init__(self, rates: Rates, stride: int, gpu: asyncio.Lock, interrupted: bool) -> None:
        """`interrupted`: orders come while others are under way."""
        self.gpu = gpu
        """Whoever holds it computes; the others wait."""
        self.busy = 0.0
        """Seconds in which there was a batch."""
        self._rates = rates
        self._stride = stride
        self._interrupted = interrupted
        self._clock = 0
        """Decode steps taken."""
        self._waiting: deque[tuple[Ordered, int]] = deque()
        self._running: list[tuple[int, int, Ordered]] = []
        """(decode step with which an answer ends, a number that is its own, its prompt), soonest first."""
        self._numbers = 0
        self._ordered = asyncio.Event()
        self._eased = asyncio.Event()
        """Answers have ended since somebody looked."""

    def submit(self, orders: Sequence[Ordered]) -> None:
        for order in orders:
            order.left = len(order.lengths)
            self._waiting.extend((order, length) for length in order.lengths)
        self._ordered.set()

    async def await_room(self) -> None:
        """Wait until it is about to run out of work, as room.py says."""
        while len(self._running) + len(self._waiting) >= enough(self._rates.room):
            self._eased.clear()
            await self._eased.wait()

    async def run(self) -> None:
        """Step as long as there is anything to do; for ever, if nobody cancels it."""
        while True:
            await self._ordered.wait()
            async with self.gpu:
                prefill = self._admit()
                steps = self._steps()
                seconds = prefill + steps * self._rates.decode(len(self._running))
                self.busy += seconds
                await asyncio.sleep(seconds)
            self._clock += steps
            self._end()
            self._eased.set()
            if not self._running and not self._waiting:
                self._ordered.clear()

    def _admit(self) -> float:
        """Let in what there is room for; returns the seconds of prefill."""
        prompts = 0
        while self._waiting and len(self._running) < self._rates.room:
            order, length = self._waiting.popleft()
            prompts += not order.begun
            order.begun = True
            steps = max(1, round(length / self._stride)) * self._stride
            self._numbers += 1
            heapq.heappush(self._running, (self._clock + steps, self._numbers, order))
        return prompts * self._rates.prompt

    def _steps(self) -> int:
        """Decode steps with the same batch: until the next answer ends, unless another may come in before."""
        if self._interrupted and len(self._running) < self._rates.room:
            return self._stride
        return self._running[0][0] - self._clock

    def _end(self) -> None:
        """Let out the answers that are complete."""
        while self._running and self._running[0][0] <= self._clock:
            order = heapq.heappop(self._running)[2]
            order.left -= 1
            if order.left == 0:
                order.done.put_nowait(order)
