"""No process of an engine outlives the one that it works for."""

import os
import select
import signal
from contextlib import suppress
from threading import Thread

OWNER = "EI_ENGINE_OWNER"
"""Environment variable: id of the process that started an engine."""


def end_with_owner() -> None:
    """In a process that works for another one's engine: end when that one does, however it ends."""
    owner = int(os.environ.get(OWNER, os.getpid()))
    if owner != os.getpid():
        Thread(target=_watch, args=(owner, os.getppid()), name="owner", daemon=True).start()


def _watch(owner: int, parent: int) -> None:
    """Wait for the end of `owner`, then end; `parent`, which stands between them and may not notice, too."""
    with suppress(ProcessLookupError):
        gone = select.poll()
        gone.register(os.pidfd_open(owner), select.POLLIN)
        gone.poll()
    # a parent that has ended meanwhile is no parent any more, and its number may be another process's
    if parent != owner and os.getppid() == parent:
        os.kill(parent, signal.SIGKILL)
    os._exit(1)
