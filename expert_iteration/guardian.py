"""Ends what is left of a private Ray when it has ended, or the process that started it was killed.

Ray's agents outlive it: they first report the death of their raylet to a server that is gone too, which takes
them minutes. And now and then a worker that has ended all of Python hangs in its last moment. This file is
also a script of its own, which needs nothing but the standard library.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

LOOK_EVERY = 0.5
"""Seconds."""
GRACE = 3.0
"""Seconds that processes have to end by themselves."""

Process: TypeAlias = tuple[int, str]
"""Its number, and when it began, as numbers are used again."""


@contextmanager
def guarded(folder: str | None = None) -> Iterator[None]:
    """Have what the block starts end when this process is gone, however it goes, and `folder` be removed."""
    before = set(descendants(os.getpid()))
    yield
    started = [number for number in descendants(os.getpid()) if number not in before]
    watched = [f"{number}:{began(number)}" for number in (os.getpid(), *started)]
    command = [sys.executable, "-I", "-S", __file__, folder or "", *watched]
    subprocess.Popen(command, start_new_session=True)


def descendants(number: int) -> list[int]:
    """Numbers of its children, of theirs, and so on."""
    children = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        if fields := fields_of(int(folder.name)):
            children[int(fields[1])].append(int(folder.name))
    found = list(children[number])
    for one in found:
        found += children[one]
    return found


def watch(owner: Process, others: Sequence[Process]) -> None:
    """Wait until `others` and their children are gone; kill them soon after `owner` or all `others` are."""
    known = set(others)
    while alive([owner]) and (roots := alive(others)):
        known.update((child, began(child)) for number, _ in roots for child in children_of(number))
        time.sleep(LOOK_EVERY)
    deadline = time.monotonic() + GRACE
    while alive(known) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
    for number, _ in alive(known):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def children_of(number: int) -> list[int]:
    """Those of all its threads."""
    found = list[int]()
    for listed in Path(f"/proc/{number}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, listed.read_text().split())
    return found


def alive(processes: Iterable[Process]) -> list[Process]:
    return [(number, start) for number, start in processes if start and began(number) == start]


def began(number: int) -> str:
    """In clock ticks since the machine started; empty if there is no such process, or a zombie only."""
    fields = fields_of(number)
    return fields[19] if fields and fields[0] != "Z" else ""


def fields_of(number: int) -> list[str]:
    """Of /proc/NUMBER/stat, from the state on; none if there is no such process."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


if __name__ == "__main__":
    scratch, *words = sys.argv[1:]
    owner, *others = ((int(number), start) for number, _, start in (word.partition(":") for word in words))
    watch(owner, others)
    if scratch and not alive([owner]):
        shutil.rmtree(scratch, ignore_errors=True)
