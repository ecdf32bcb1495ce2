"""What a process does that says nothing: it writes the stacks of its threads into its log when told to."""

import asyncio
import faulthandler
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

SIGNAL = signal.SIGUSR1
WRITING = 1.0
"""Seconds that processes get to write."""
STANDARD_ERROR = 2


def write_stacks_when_told() -> None:
    """From now on, `SIGNAL` has this process write the stacks of all threads to standard error.

    It does so even when a thread never returns to Python.
    """
    faulthandler.register(SIGNAL, file=STANDARD_ERROR, all_threads=True)


async def write_stacks(processes: Sequence[tuple[int, Path]]) -> set[Path]:
    """Tell processes, by id and log, to write; returns the logs of those that did."""
    before = {log: _size(log) for _, log in processes}
    for pid, _ in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, SIGNAL)
    await asyncio.sleep(WRITING)
    return {log for log, size in before.items() if _size(log) > size}


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0
