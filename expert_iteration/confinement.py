"""The life of a grading worker: a process that answers requests, may be killed, and can do little else.

grading/pool.py starts the programs that call `serve`, as plain scripts. Standard library only: what a worker
imports, every worker pays for.
"""

import ctypes
import json
import logging
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

MEMORY_BYTES = 1 << 30
"""Address space of a worker, unless its program asks for less."""
OUT_OF_MEMORY = "memory"
"""Reply of a worker that has met its memory limit; the pool replaces it."""
PR_SET_PDEATHSIG = 1


def serve(judge: Callable[..., str], memory_bytes: int = MEMORY_BYTES) -> None:
    """Answer each request, a JSON list of texts, with ``judge(*texts)``, until the connection closes.

    Whatever `judge` reads from disk must have been read before. The command line names the file descriptor
    of the connection, the process id of the parent and the deadline of one request in seconds.
    `memory_bytes` bounds the address space.
    """
    channel, parent, deadline = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    die_with(parent)
    limit_resources(memory_bytes)
    with Connection(channel) as connection, suppress(EOFError, BrokenPipeError):
        connection.send_bytes(b"ready")
        while True:
            texts = json.loads(connection.recv_bytes())
            limit_cpu(deadline)
            try:
                reply = judge(*texts)
            except MemoryError:
                reply = OUT_OF_MEMORY
            connection.send_bytes(reply.encode())


def die_with(parent: int) -> None:
    """End when the parent does, however it ends, and leave Ctrl-C to it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def limit_resources(memory_bytes: int) -> None:
    """No files, no children, bounded memory; the first to go when the machine runs out of it."""
    logging.disable(logging.CRITICAL)
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    for kind, value in limits.items():
        resource.setrlimit(kind, (value, value))


def limit_cpu(deadline: float) -> None:
    """Die of CPU time soon after the deadline, even if the parent is stopped and cannot kill."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = math.ceil(used.ru_utime + used.ru_stime + deadline) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.RLIM_INFINITY))
