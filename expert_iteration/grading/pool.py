"""Judges in processes that can be killed: the only way to bound a computation like 9^9^9.

A judge is a program, run as a plain script, that reads JSON lists of texts from a connection and answers
each with one text. One thread per worker asks it and keeps the clock. A worker is started when an answer
first needs it, and replaced after it was killed or died.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import TypeAlias

from expert_iteration.confinement import OUT_OF_MEMORY
from expert_iteration.types import Outcome, Verdict

START_LIMIT = 120.0
"""Seconds that a worker may take to import what it needs."""

_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "LANG")
"""All that a worker inherits: it runs on model output and gets to see no token."""


class WorkerStartError(RuntimeError):
    """A worker does not come up: the installation is at fault, not an answer."""


Reply: TypeAlias = str | Verdict
"""What the program says, or a verdict that abstains: the program took too long, or died."""


class Pool:
    """Runs `program` in `workers` processes, each request within `deadline` seconds.

    `map` may be called from several threads at once; no more than `workers` requests run at a time.
    """

    def __init__(self, program: Path, workers: int, deadline: float) -> None:
        self._workers = [Worker(program, deadline) for _ in range(workers)]
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        # These threads outlive every call: the kernel kills a worker when the *thread* that started it ends.
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="grading")

    def map(self, requests: Sequence[Sequence[str]]) -> list[Reply]:
        """The reply to each request, in order.

        Raises:
            WorkerStartError: the program cannot be started in a process of its own.
        """
        return list(self._threads.map(self._judge, requests))

    def close(self) -> None:
        """Finish what runs, then leave no process behind."""
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.stop()

    def processes(self) -> list[int]:
        """Process ids of the workers that have been started."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def _judge(self, request: Sequence[str]) -> Reply:
        worker = self._idle.get()
        try:
            return worker.ask(request)
        finally:
            self._idle.put(worker)


class Worker:
    """One process of `program`, used by one thread at a time."""

    def __init__(self, program: Path, deadline: float) -> None:
        self._program = program
        self._deadline = deadline
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def ask(self, request: Sequence[str]) -> Reply:
        """One request; the clock starts when the worker is ready."""
        connection = self._ready()
        try:
            connection.send_bytes(json.dumps(request).encode())
            reply = connection.recv_bytes().decode() if connection.poll(self._deadline) else None
        except (EOFError, OSError):
            self.stop()
            return Verdict(Outcome.ERROR, "the grading worker died")
        if reply is None:
            self.stop()
            return Verdict(Outcome.TIMEOUT, f"over {self._deadline:g} s")
        if reply == OUT_OF_MEMORY:
            self.stop()
            return Verdict(Outcome.ERROR, "out of memory")
        return reply

    def stop(self) -> None:
        """Kill the process, if there is one, and reap it."""
        if self._process is not None and self._connection is not None:
            self._process.kill()
            self._process.wait()
            self._connection.close()
        self._process = self._connection = None

    def _ready(self) -> Connection:
        if self._process is not None and self._process.poll() is not None:
            self.stop()
        if self._connection is None:
            self._connection = self._start()
        return self._connection

    def _start(self) -> Connection:
        mine, theirs = Pipe()
        channel = theirs.fileno()
        command = [
            sys.executable,
            "-P",
            str(self._program),
            str(channel),
            str(os.getpid()),
            str(self._deadline),
        ]
        inherited = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(
                command,
                pass_fds=[channel],
                # sympy orders terms by hash: a fixed seed makes verdicts reproducible.
                env={**inherited, "PYTHONHASHSEED": "0"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._connection = mine
        self._await_ready(mine)
        return mine

    def _await_ready(self, connection: Connection) -> None:
        try:
            if connection.poll(START_LIMIT):
                connection.recv_bytes()
                return
            problem = f"is not ready after {START_LIMIT:g} s"
        except EOFError:
            problem = "ended before it was ready"
        self.stop()
        raise WorkerStartError(
            f"A grading worker {problem}; run `{sys.executable} {self._program}` to see why."
        )
