"""How far a single piece of work is, in one line."""

import time
from collections.abc import Callable
from typing import TextIO

from expert_iteration.reporting.text import duration

QUIET = 10.0
"""Seconds between two lines where there is no terminal."""


class Progress:
    """One line that grows: on a terminal it is written over, elsewhere it comes now and then."""

    def __init__(
        self, total: int, what: str, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`what` is counted, in the plural."""
        self._total = total
        self._what = what
        self._stream = stream
        self._clock = clock
        self._done = 0
        self._begun = self._written = clock()

    def advance(self, count: int) -> None:
        self._done += count
        now = self._clock()
        if self._stream.isatty():
            self._stream.write(f"\r{self._line(now)}\x1b[K")
            self._stream.flush()
        elif now - self._written >= QUIET or self._done == self._total:
            self._written = now
            self._stream.write(f"{self._line(now)}\n")

    def end(self) -> None:
        if self._stream.isatty():
            self._stream.write("\n")

    def _line(self, now: float) -> str:
        elapsed = now - self._begun
        left = elapsed / self._done * (self._total - self._done)
        return (
            f"[{duration(elapsed)}] {self._done:,}/{self._total:,} {self._what} "
            f"({self._done / self._total:.0%}), {duration(left)} left"
        )
