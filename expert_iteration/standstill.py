"""What a push keeps an engine from: orders that are given up for it, and time in which nothing is made."""

import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from expert_iteration.request import Request, Rollouts
from expert_iteration.types import Interruption


@dataclass(frozen=True, slots=True)
class Order:
    """A request that is under way, and where its answers are waited for."""

    request: Request
    answers: Future[Rollouts]


class Standstill:
    """Of one engine, from the first word of a push to its end; pushes that break off are part of the next."""

    def __init__(self) -> None:
        self.given_up: list[Order] = []
        """To be sampled anew afterwards."""
        self._idle_since: float | None = None

    def note_work(self) -> None:
        """There is work that cannot be done now."""
        if self._idle_since is None:
            self._idle_since = time.perf_counter()

    def end(self, resumed: Iterable[Order]) -> tuple[list[Order], Interruption]:
        """Returns what was given up, and what the push has done to it and to the orders that go on."""
        given_up, self.given_up = self.given_up, []
        stalled = 0.0 if self._idle_since is None else time.perf_counter() - self._idle_since
        self._idle_since = None
        return given_up, Interruption(stalled, _answers(given_up), _answers(resumed))


def _answers(orders: Iterable[Order]) -> int:
    return sum(order.request.n for order in orders)
