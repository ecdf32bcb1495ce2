"""The machine that a run is planned for: this one as it is, or another one as it is described."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from expert_iteration.checks import placing
from expert_iteration.planning.memory import GIB, MIB

PATIENCE = 10.0
"""Seconds that nvidia-smi may take."""
CGROUP = Path("/sys/fs/cgroup/memory.max")
MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Machine:
    """Sizes in bytes; None: unknown."""

    gpus: tuple[int | None, ...]
    """Memory of each GPU."""
    memory: int | None
    """Of the host."""
    disk: int | None
    """Free where the run folder will be."""
    here: bool = True
    """It is this machine."""

    @property
    def gpu_memory(self) -> int | None:
        """Of the smallest GPU."""
        known = [size for size in self.gpus if size is not None]
        return min(known) if known and len(known) == len(self.gpus) else None


def described(devices: int, memory: float | None, ram: float | None) -> Machine:
    """Another machine: `memory` GiB on each of its GPUs, `ram` GiB on the host."""
    each = None if memory is None else round(memory * GIB)
    return Machine((each,) * devices, None if ram is None else round(ram * GIB), None, here=False)


def this_machine(run_dir: Path) -> Machine:
    named = nvidia_smi()
    return Machine(tuple(named or [None] * placing.gpus_here()), memory_here(), free_at(run_dir))


def nvidia_smi() -> list[int]:
    """Memory of each GPU that nvidia-smi names, in bytes; empty where it names none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return []  # a machine without a driver may have the program all the same
    return parse(answer.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def parse(answer: str, visible: str | None) -> list[int]:
    """Bytes from the MiB that nvidia-smi prints, a GPU each line, of as many as the run may see."""
    sizes = [int(line) * MIB for line in answer.split() if line.isdecimal()]
    if visible is None:
        return sizes
    chosen = [name.strip() for name in visible.split(",") if name.strip()]
    if all(name.isdecimal() for name in chosen):
        return [sizes[int(name)] for name in chosen if int(name) < len(sizes)]
    return sizes[: len(chosen)]


def memory_here() -> int | None:
    """Of the host, or what this container may use of it."""
    found = []
    if MEMINFO.is_file():
        line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemTotal:"))
        found.append(int(line.split()[1]) * 1024)
    if CGROUP.is_file() and (limit := CGROUP.read_text().strip()).isdecimal():
        found.append(int(limit))
    return min(found, default=None)


def free_at(folder: Path) -> int:
    """Bytes free on the disk where `folder` is, or would be made."""
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free
