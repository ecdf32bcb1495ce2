"""What each part of a run needs, in bundles that lie on one node each."""

from collections.abc import Iterable
from dataclasses import dataclass

from expert_iteration.algorithms import needs_reference
from expert_iteration.choices import Device
from expert_iteration.config import RunConfig

WRITERS = ("buffer", "trainer")
"""Roles that write into the run folder what a run goes on from; the first word of a part's name."""


@dataclass(frozen=True)
class Seat:
    """Room for one actor."""

    part: str
    """`trainer 0`, `collector 1`, `reference 0` or `buffer`."""
    cpus: int
    gpus: float
    """A fraction where several parts share one."""


@dataclass(frozen=True)
class Bundle:
    """Seats that are on one node, with the whole GPUs that they have among them."""

    seats: tuple[Seat, ...]
    gpus: int

    @property
    def cpus(self) -> int:
        return sum(seat.cpus for seat in self.seats)

    @property
    def writes(self) -> bool:
        """Whether a part of it writes checkpoints or rollouts."""
        return any(seat.part.split()[0] in WRITERS for seat in self.seats)

    def __str__(self) -> str:
        parts = ", ".join(seat.part for seat in self.seats if seat.cpus)
        return f"{parts} ({amount(self.gpus, self.cpus)})"


def bundles_of(config: RunConfig) -> list[Bundle]:
    """Those of a run with actors: trainers, then collectors, then references.

    An engine with tensor parallel parts has all of them in one bundle. The buffer sits beside trainer 0 and
    takes nothing. On CPU a part reserves its threads.
    """
    place = config.placement
    gpu = 1 if place.device is Device.cuda else 0
    infer, threads = place.infer, place.train.threads
    parts = [Seat(f"trainer {rank}", threads, gpu) for rank in range(place.train.devices)]
    parts += [
        Seat(f"collector {replica}", infer.threads, gpu * infer.tensor_parallel)
        for replica in range(infer.replicas)
    ]
    if needs_reference(config):
        parts += [Seat(f"reference {rank}", threads, gpu) for rank in range(place.reference.devices)]
    buffer = Seat("buffer", 0, 0)
    if place.shared:
        shares = (Seat(part.part, part.cpus, gpu / len(parts)) for part in parts)
        return [Bundle((buffer, *shares), gpu)]
    first, *others = parts
    return [Bundle((buffer, first), gpu), *(Bundle((part,), int(part.gpus)) for part in others)]


def amount(gpus: float, cpus: float) -> str:
    """`2 GPU, 1 CPU`; GPUs are left out where there are none."""
    return (f"{gpus:g} GPU, " if gpus else "") + f"{cpus:g} CPU"


def total(bundles: Iterable[Bundle]) -> tuple[int, int]:
    """GPUs and CPUs."""
    found = list(bundles)
    return sum(bundle.gpus for bundle in found), sum(bundle.cpus for bundle in found)
