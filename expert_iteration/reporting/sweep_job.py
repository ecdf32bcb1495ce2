"""Which job of which sweep a run is, by the folder it lies in."""

from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

SWEEP = "multirun.yaml"
"""What Hydra's sweepers leave in the folder of a sweep."""


@dataclass(frozen=True, slots=True)
class SweepJob:
    sweep: str
    """Name of the sweep's folder."""
    job: str
    """Name of the run's folder below it: the number of the job."""


def sweep_job(run_dir: Path) -> SweepJob | None:
    """None for a run that is part of no sweep. A job that is resumed alone still belongs to its sweep."""
    folder = run_dir.resolve()
    if (folder.parent / SWEEP).is_file() or _is_multirun():
        return SweepJob(folder.parent.name, folder.name)
    return None


def _is_multirun() -> bool:
    """Not every sweeper writes SWEEP."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN
