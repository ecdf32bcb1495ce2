"""The lines of a stream in bounded bundles, each as soon as it is there."""

import os
import select
from collections.abc import Iterator

BUNDLE_LINES = 512
BUNDLE_BYTES = 8 << 20
"""A bundle ends with the line that reaches one of these."""
LONGEST_LINE = 4 << 20
"""Bytes of a line that are kept, and one more, by which a longer one can be told."""
READ_BYTES = 1 << 16


class Splitter:
    """Cuts bytes into lines, whatever the pieces in which they come."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their ends."""
        if len(self._rest) > LONGEST_LINE:
            _, end, data = data.partition(b"\n")
            data = end + data
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[: LONGEST_LINE + 1]
        return [line[: LONGEST_LINE + 1] for line in lines]

    def finish(self) -> list[bytes]:
        """The last line, if it has no end."""
        return [self._rest] if self._rest else []


def bundles(descriptor: int) -> Iterator[list[bytes]]:
    """Lines of an open file, pipe or terminal, in order: a full bundle, or what can be had without waiting.

    Memory is bounded by the limits above, however long the stream or one of its lines.
    """
    splitter = Splitter()
    lines: list[bytes] = []
    while data := os.read(descriptor, READ_BYTES):
        lines += splitter.feed(data)
        if _is_full(lines) or not _has_more(descriptor):
            yield lines
            lines = []
    yield lines + splitter.finish()


def _is_full(lines: list[bytes]) -> bool:
    return len(lines) >= BUNDLE_LINES or sum(map(len, lines)) >= BUNDLE_BYTES


def _has_more(descriptor: int) -> bool:
    """Whether a read would not wait; true of a regular file always, and at the end of a stream."""
    return bool(select.select([descriptor], [], [], 0)[0])
