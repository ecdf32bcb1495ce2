"""Whether a collector can use more work."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock

SPARE = 8
"""An engine has room while less waits for it than this part of what it works on at a time: that lasts until
more has come."""
MOST_ORDERS = 192
"""Orders that a collector works on side by side."""
LOOK_EVERY = 0.02
"""Seconds between looks at the engine."""


class Room:
    """What has been ordered and has not reached the engine yet counts as if it had."""

    def __init__(self, unfinished: Callable[[], int], at_once: int) -> None:
        """
        Args:
            unfinished: answers that the engine works on, or has before it.
            at_once: those that it works on at a time.
        """
        self._unfinished = unfinished
        self._enough = enough(at_once)
        self._orders = 0
        self._coming = 0
        self._turn = Lock()
        self._closed = Event()

    @contextmanager
    def taken(self, answers: int) -> Iterator[Callable[[], None]]:
        """For the time of an order. Yields what is to be called when the engine has its `answers`."""
        self._count(1, answers)
        coming = [answers]

        def arrived() -> None:
            self._count(0, -coming.pop())

        try:
            yield arrived
        finally:
            self._count(-1, -sum(coming))

    def wait(self, limit: float) -> bool:
        """Until there is some, for `limit` seconds at most, or the end; whether there is."""
        deadline = time.monotonic() + limit
        while not self.is_there():
            if time.monotonic() > deadline or self._closed.wait(LOOK_EVERY):
                return False
        return True

    def close(self) -> None:
        """End every wait: a thread that waits would keep its process from ending."""
        self._closed.set()

    def is_there(self) -> bool:
        return self._orders < MOST_ORDERS and self._coming + self._unfinished() < self._enough

    def _count(self, orders: int, coming: int) -> None:
        with self._turn:
            self._orders += orders
            self._coming += coming


def enough(at_once: int) -> int:
    """Answers that an engine is to have, under way or before it, which works on `at_once` at a time."""
    return at_once + at_once // SPARE
