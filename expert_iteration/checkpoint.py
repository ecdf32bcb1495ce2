"""Everything a run needs to go on, in one folder that is complete or absent.

`checkpoints/step_00000120/` holds `model/` (a Hugging Face folder), the trainer's and the buffer's
parts, `progress.json` and `provenance.json`. It is written under a temporary name and renamed when it is
whole, so a scan of the folder, not a pointer file, says what the last checkpoint is.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from expert_iteration.config import ConfigError
from expert_iteration.scheduler import Progress

STATE = "progress.json"
PROVENANCE = "provenance.json"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the verdicts of a run rest on."""

    grader_version: str
    data_hash: str


def checkpoint_folder(run_dir: Path, steps: int) -> Path:
    return run_dir / "checkpoints" / f"step_{steps:08d}"


@contextmanager
def saving(run_dir: Path, progress: Progress, provenance: Provenance, keep_last: int) -> Iterator[Path]:
    """A temporary folder that becomes the checkpoint of `progress` when the block ends well.

    Afterwards only the `keep_last` newest checkpoints stay.
    """
    final = checkpoint_folder(run_dir, progress.steps)
    temporary = final.with_name(f"tmp-{final.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    for name, values in ((STATE, progress), (PROVENANCE, provenance)):
        (temporary / name).write_text(json.dumps(asdict(values), indent=2), encoding="utf-8")
    _flush(temporary)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    _flush_folder(final.parent)
    for old in existing(run_dir)[:-keep_last]:
        shutil.rmtree(old)


def existing(run_dir: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return sorted(folder for folder in (run_dir / "checkpoints").glob("step_*") if (folder / STATE).is_file())


def newest(run_dir: Path) -> Path:
    """The checkpoint that a resumed run starts from.

    Raises:
        ConfigError: there is none.
    """
    found = existing(run_dir)
    if not found:
        raise ConfigError(f"resume ({run_dir}) holds no checkpoint; start a new run instead.")
    return found[-1]


def progress_of(run_dir: Path) -> Progress:
    """Where the run stood at its newest checkpoint."""
    return Progress(**json.loads((newest(run_dir) / STATE).read_text(encoding="utf-8")))


def provenance_of(run_dir: Path) -> Provenance:
    """What the newest checkpoint of a run rests on.

    Raises:
        ConfigError: there is no checkpoint, or it does not say.
    """
    path = newest(run_dir) / PROVENANCE
    if not path.is_file():
        raise ConfigError(
            f"resume ({run_dir}): {path} does not exist, so nobody knows which data and which grader the "
            "checkpoint rests on; start a new run, with model.path set to its model folder."
        )
    return Provenance(**json.loads(path.read_text(encoding="utf-8")))


def refuse_other_data(run_dir: Path, data_hash: str) -> None:
    """Let a run go on only with the data that it began with.

    Raises:
        ConfigError: the newest checkpoint rests on other data.
    """
    saved = provenance_of(run_dir).data_hash
    if saved != data_hash:
        raise ConfigError(
            f"resume ({run_dir}): its data has the hash {saved}, but the data of this configuration has "
            f"{data_hash}; bring back the rows and limits that it began with, or start a new run."
        )


def _flush(folder: Path) -> None:
    """Bring every file below `folder` to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
