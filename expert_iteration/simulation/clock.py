"""A clock that jumps: whoever waits for a time is there at once, in the order of the times."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Jump(selectors.DefaultSelector):
    """Instead of waiting for files, moves the clock on to the next time that anybody waits for."""

    now = 0.0
    """Seconds since the loop began."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for somebody else, and nobody for a time"
        self.now += timeout
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` passes only while all of its tasks sleep, and then in no time."""

    def __init__(self) -> None:
        self._jump = Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


def in_no_time(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, however long it sleeps; ``loop.time()`` tells what time it is there."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(work)
