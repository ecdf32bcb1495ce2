"""Whole runs of scripts/train.py in processes of their own, and what they leave behind."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expert_iteration.guardian import began, fields_of

ROOT = Path(__file__).parents[1]
SMALL = (
    "iterations=2",
    "prompts_per_iteration=24",
    "rollouts_per_prompt=4",
    "epochs=2",
    "batch_size=8",
    "eval.limit=20",
    "optimizer.warmup_steps=0",
    "logger.report=false",
)
"""A run of seconds, apart from its start."""


@dataclass
class Finished:
    """A run that has ended."""

    folder: Path
    code: int
    output: str
    survivors: list[str]
    """Command lines of its processes that are still there."""
    shared_memory: set[str]
    """What it left in /dev/shm and no process uses."""

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.folder / "summary.json").read_text())

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @property
    def rollouts(self) -> list[dict[str, Any]]:
        files = sorted((self.folder / "rollouts").glob("iteration_*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def values(self, key: str) -> list[Any]:
        return [event[key] for event in self.events if key in event]


def train(
    folder: Path,
    *overrides: str,
    interfere: Callable[[subprocess.Popen[str]], None] | None = None,
    env: dict[str, str] | None = None,
    largest_file: int = resource.RLIM_INFINITY,
    prefix: Sequence[str] = (),
) -> Finished:
    """Run to the end.

    Args:
        interfere: may send signals meanwhile.
        env: adds to the environment.
        largest_file: bytes after which a file takes no more, as on a disk that is full.
        prefix: stands before the command.
    """
    mark, shared_memory = uuid.uuid4().hex, _shared_memory()
    process = subprocess.Popen(
        [*prefix, sys.executable, str(ROOT / "scripts" / "train.py"), *overrides, f"hydra.run.dir={folder}"],
        cwd=ROOT,
        env=os.environ | {"EI_TEST_MARK": mark, "OMP_NUM_THREADS": "1"} | (env or {}),
        preexec_fn=lambda: _prepare(largest_file),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    begun = int(began(process.pid))
    try:
        if interfere is not None:
            interfere(process)
        output, _ = process.communicate(timeout=300)
    finally:
        process.kill()  # no effect on one that has ended

    def survivors() -> list[str]:
        return _processes_with(mark) + _actors(mark, begun)

    def left() -> set[str]:
        return _shared_memory() - shared_memory

    wait_until(lambda: not survivors() and not left(), seconds=10)
    return Finished(folder, process.returncode, output, survivors(), left())


def _prepare(largest_file: int) -> None:
    """In the process of the run, before it becomes one."""
    # a shell starts its background jobs with SIGINT ignored, and children inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether `condition` came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _shared_memory() -> set[str]:
    """Names in /dev/shm that no process has open or mapped."""
    there, used = dict[str, int](), set[int]()
    for path in Path("/dev/shm").iterdir():
        with suppress(FileNotFoundError):
            there[path.name] = path.stat().st_ino
    for process in Path("/proc").glob("[0-9]*"):
        try:
            maps = (process / "maps").read_text().splitlines()
            opened = [link for link in (process / "fd").iterdir() if "/dev/shm/" in str(link.readlink())]
            used |= {link.stat().st_ino for link in opened}
        except OSError:
            continue  # it ended meanwhile
        # a named semaphore is mapped under a name that it had before
        used |= {int(line.split()[4]) for line in maps if "/dev/shm/" in line}
    return {name for name, inode in there.items() if inode not in used}


def _actors(mark: str, begun: int) -> list[str]:
    """Titles of Ray's processes whose parent has `mark`, or is gone and they began after that.

    Their own environment is overwritten.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            fields = fields_of(int(folder.name))
            if not title.startswith("ray::") or not fields:
                continue
            orphan = fields[1] == "1" and int(fields[19]) >= begun
            ours = orphan or mark.encode() in Path(f"/proc/{fields[1]}/environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if ours:
            found.append(title.strip())
    return found


def _processes_with(mark: str) -> list[str]:
    """Command lines of all processes that inherited `mark` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
        except OSError:
            continue  # it ended meanwhile, or is not ours
    return found
