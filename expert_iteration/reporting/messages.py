"""The package's log messages, shown without disturbing the progress display."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from expert_iteration.reporting.redact import masked
from expert_iteration.reporting.text import one_line

PACKAGE = "expert_iteration"


class SafeFormatter(logging.Formatter):
    """A message is one line without secrets, whatever the text of a model or a user in it says."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return masked(one_line(super().formatMessage(record)))

    def formatException(self, ei: object) -> str:
        lines = super().formatException(ei).split("\n")  # type: ignore[arg-type]
        return "\n".join(f"    {masked(one_line(line))}" for line in lines)


class _Relay(logging.Handler):
    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(self.format(record))


@contextmanager
def captured_messages(show: Callable[[str], None], path: Path) -> Iterator[None]:
    """While open, log messages of this package go to `show` and to the file `path`, and nowhere else.

    The logger is put back as it was found, so that several runs can follow each other in one process.
    """
    logger = logging.getLogger(PACKAGE)
    relay = _Relay(show)
    relay.setFormatter(SafeFormatter("%(levelname)s %(message)s"))
    file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    found = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in (relay, file):
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in (relay, file):
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(found[0])
        logger.propagate = found[1]
