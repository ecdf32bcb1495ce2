"""The machine: Python, packages, GPUs, disk, shared memory, ports. Nothing here loads a model."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from expert_iteration.checks.placing import gpus_needed
from expert_iteration.choices import Device
from expert_iteration.config import RunConfig
from expert_iteration.doctor.finding import Finding, green, red, skipped

PYTHONS = ((3, 11), (3, 12), (3, 13))
"""Versions that the pinned sets serve."""

DRIVERS = {12: 525, 13: 580}
"""Oldest major version of NVIDIA's driver for each major version of CUDA, by NVIDIA's compatibility table."""

QUERY = (
    "nvidia-smi",
    "--query-gpu=name,driver_version,memory.total,memory.free",
    "--format=csv,noheader,nounits",
)
ANSWER_LIMIT = 10.0
"""Seconds that nvidia-smi, or a port, may take to answer."""

SHOWN = 3
"""Packages that a line names; the others are counted."""

PROBE_BYTES = 2**20

GIB = 2**30


class Gpu(NamedTuple):
    name: str
    driver: str
    total_mib: int
    free_mib: int


def python(version: tuple[int, int, int], executable: str) -> Finding:
    said, known = ".".join(map(str, version)), ", ".join(f"{major}.{minor}" for major, minor in PYTHONS)
    if version[:2] in PYTHONS:
        return green("python", f"{said} ({executable})")
    return red(
        "python",
        f"{said}, but the pinned sets are for {known}",
        "set EI_PYTHON, then bash scripts/bootstrap.sh",
    )


def installed_packages() -> dict[str, str]:
    """Version of every package by its normalised name; the first on the path, which is what is imported."""
    found: dict[str, str] = {}
    for item in metadata.distributions():
        found.setdefault(_normalised(item.metadata["Name"]), item.version)
    return found


def packages(installed: Mapping[str, str], requirements: Path, device: str) -> Finding:
    """Compare with the pins of `device` in the folder `requirements`."""
    file = requirements / f"{device}.txt"
    if not file.is_file():
        return skipped("packages", f"{file} is not here, so there are no pins to compare with")
    pins = read_pins(file)
    wrong = [
        f"{name} {installed.get(name, 'is missing')} (pinned: {version})"
        for name, version in pins.items()
        if installed.get(name) != version
    ]
    without = requirements / f"{device}-without.txt"
    wrong += [
        f"{name} {installed[name]} (must not be there)" for name in _names(without) if name in installed
    ]
    if not wrong:
        return green("packages", f"{len(pins)} as pinned in {file.parent.name}/{file.name}")
    more = f", and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return red(
        "packages",
        f"{len(wrong)} are not as pinned in {file.parent.name}/{file.name}: {', '.join(wrong[:SHOWN])}{more}",
        f"EI_EXTRA={device} bash scripts/bootstrap.sh makes .venv anew; run from it",
    )


def read_pins(file: Path) -> dict[str, str]:
    """The `name==version` lines of a pinned set."""
    lines = file.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==", 1) for line in lines if "==" in line and not line.startswith("#")]
    return {_normalised(name): version.strip() for name, version in pairs}


def _names(file: Path) -> list[str]:
    """Packages that must not be there; none where there is no such list."""
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    return [_normalised(line.split(";")[0].strip()) for line in lines if line and not line.startswith("#")]


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def gpus_of_machine() -> list[Gpu] | None:
    """What NVIDIA's driver says of the GPUs here; None: there is no driver, or it does not answer."""
    try:
        said = subprocess.run(QUERY, capture_output=True, text=True, timeout=ANSWER_LIMIT, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    cells = [[cell.strip() for cell in line.split(",")] for line in said.splitlines() if line.strip()]
    return [Gpu(name, driver, int(total), int(free)) for name, driver, total, free in cells]


def gpu(config: RunConfig, found: Sequence[Gpu] | None, pins: Mapping[str, str]) -> Finding:
    """Number of GPUs and version of the driver; `pins` are those of the GPU set."""
    if config.placement.device is Device.cpu:
        return green("gpu", "none is asked for (placement.device=cpu)")
    if config.ray.address is not None:
        return skipped("gpu", "those of the cluster at ray.address are counted when a run joins it")
    needed = gpus_needed(config)
    if found is None:
        return red("gpu", "nvidia-smi does not answer", "install NVIDIA's driver, or use placement=cpu")
    if len(found) < needed:
        cause = f"the placement needs {needed}, and {len(found)} are here"
        return red("gpu", cause, "use placement=one_gpu or placement=cpu, or another machine")
    cuda = int(pins.get("nvidia-cuda-runtime", "0").split(".")[0])
    oldest, driver = DRIVERS.get(cuda, 0), found[0].driver
    if int(driver.split(".")[0]) < oldest:
        return red("gpu", f"driver {driver} is too old for CUDA {cuda}", f"install driver {oldest} or newer")
    free = ", ".join(f"{one.name} with {one.free_mib:,} of {one.total_mib:,} MiB free" for one in found)
    return green("gpu", f"driver {driver}; {free}")


def disk(folder: Path, free: int, needed: int | None) -> Finding:
    """Room for the checkpoints of a run, in bytes; `needed` is None where the model cannot be read."""
    room = f"{free / GIB:,.1f} GiB free at {folder}"
    if needed is None:
        return skipped("disk", f"{room}; what checkpoints take is known once the model can be read")
    place = f"{room}, and checkpoints take about {needed / GIB:,.2f} GiB"
    if free >= needed:
        return green("disk", place)
    return red("disk", place, "make room, name another hydra.run.dir, or lower checkpoint.keep_last")


def shared_memory(size: int, free: int, needed: int) -> Finding:
    """Room for Ray's object store in /dev/shm, in bytes; `needed` is 0 where there is no Ray."""
    place = f"{free / GIB:.2f} of {size / GIB:.2f} GiB free, and Ray takes {needed / GIB:.2f} GiB"
    if free >= needed:
        return green("/dev/shm", place)
    remedy = "remove what is left there, or give the container more (docker run --shm-size=2g)"
    return red("/dev/shm", place, remedy)


def ports() -> Finding:
    """A connection over the loopback interface, as Ray's processes make many."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(ANSWER_LIMIT)
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), ANSWER_LIMIT) as client:
                server.accept()[0].close()
                client.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        cause = f"no connection over 127.0.0.1 ({error})"
        return red(
            "ports", cause, "allow loopback connections in the sandbox or firewall, or use placement=local"
        )
    return green("ports", "a loopback port can be opened and reached")


def outputs(folder: Path) -> Finding:
    """Whether a run could write into `folder`; nothing is left there."""
    place = existing_part(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return red("outputs", f"{place} cannot be written ({error.strerror})", "name another hydra.run.dir")
    return green("outputs", f"{place} can be written")


def existing_part(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    absolute = folder.absolute()
    return next(place for place in (absolute, *absolute.parents) if place.exists())


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(existing_part(folder)).free
