"""Where a part came to be, and the refusal of places where it cannot do its work."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from expert_iteration.config import ConfigError
from expert_iteration.placement.bundles import WRITERS, Seat


@dataclass(frozen=True)
class Place:
    """Where an actor runs and what it finds there, in its own words."""

    node: str
    """Id of the node."""
    address: str
    pid: int
    gpus: tuple[str, ...] = ()
    """Ids of the GPUs that it was given, on its node."""
    mark: str | None = None
    """What storage.py left in the run folder, if that is seen from there."""
    has_model: bool = True

    def __str__(self) -> str:
        return self.address + (f" with GPU {', '.join(self.gpus)}" if self.gpus else "")


def refuse_devices(seat: Seat, place: Place, others: Mapping[str, Place]) -> None:
    """Let a part have the GPUs that its seat promises, and those alone, unless the seat is a share.

    Raises:
        ConfigError: it has fewer, or one that one of the `others`, by their names, has.
    """
    if len(place.gpus) < seat.gpus:
        raise ConfigError(
            f"{seat.part} asks for {seat.gpus:g} GPU and was given {len(place.gpus)} on {place.address}; "
            "start that node of Ray anew, so that it counts its GPUs (ray start --num-gpus)."
        )
    if 0 < seat.gpus < 1:
        return
    for name, other in others.items():
        if other.node == place.node and (common := set(place.gpus) & set(other.gpus)):
            raise ConfigError(
                f"{name} and {seat.part} both have GPU {', '.join(sorted(common))} of {place.address}, but "
                "placement.shared is false; start that node of Ray anew with the number of its GPUs, or use "
                "placement=one_gpu."
            )


def refuse_storage(part: str, place: Place, run_dir: Path, mark: str) -> bool:
    """Whether a part sees the run folder of the driver; what writes checkpoints must.

    Raises:
        ConfigError: it writes checkpoints or rollouts, and sees another folder.
    """
    if place.mark == mark:
        return True
    if part.split()[0] in WRITERS:
        raise ConfigError(
            f"{part} on {place.address} does not see the run folder {run_dir}, into which it writes "
            "checkpoints; name a hydra.run.dir on storage that all nodes share, or start the run on a node "
            "that has room for the buffer and all trainers."
        )
    return False


def refuse_model(part: str, place: Place, path: str) -> None:
    """
    Raises:
        ConfigError: `path` is a folder that is not there.
    """
    if not place.has_model:
        raise ConfigError(
            f"model.path ({path}) is no model folder on {place.address}, where {part} runs; put it there "
            "under the same name, or on storage that all nodes share, or give a hub id, which each node "
            "downloads."
        )
