"""Standard output of a process to a file of the run folder: the libraries' noise is kept, not shown."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def redirect_output(run_dir: Path, name: str) -> None:
    """Send this process's standard output and error to ``logs/<name>.log``, for good."""
    log = _open_log(run_dir, name)
    _point_at(log)
    os.close(log)


@contextmanager
def captured_output(run_dir: Path, name: str) -> Iterator[TextIO]:
    """The same until the block ends; yields the stream that still reaches the terminal."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    log = _open_log(run_dir, name)
    _point_at(log)
    os.close(log)
    try:
        with os.fdopen(os.dup(saved[0]), "w", encoding="utf-8", buffering=1) as terminal:
            yield terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, original in enumerate(saved, start=1):
            os.dup2(original, number)
            os.close(original)


def _open_log(run_dir: Path, name: str) -> int:
    folder = run_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    # whoever gave us the run folder must not choose by a link what we write to
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return os.open(folder / f"{name}.log", flags, 0o600)


def _point_at(log: int) -> None:
    for number in (1, 2):
        os.dup2(log, number)
