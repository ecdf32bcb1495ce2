"""Everything a run needs to go on, in one folder that is complete or absent.

`checkpoints/step_00000120/` holds `model/` (a Hugging Face folder), the parts of trainer and buffer,
`standing.json`, and `manifest.json` with size and sha256 of every file. It is written under a temporary
name, brought to the disk, and renamed when it is whole, so a scan of the folder, not a pointer file, says
what the last checkpoint is; and what was damaged afterwards is found before any of it is used.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from expert_iteration.config import CheckpointConfig, ConfigError
from expert_iteration.faults import reach
from expert_iteration.scheduler import Progress

STANDING = "standing.json"
MANIFEST = "manifest.json"
DRAFT = "tmp-"
"""Before the name of a folder that is not whole yet."""
DAMAGED = "damaged-"
"""Before the name of a folder that was found to be damaged."""
SPARE_BYTES = 2**20
"""Room that must be left beside a checkpoint."""

logger = logging.getLogger(__name__)


class DamagedCheckpoint(RuntimeError):
    """No checkpoint that is whole, or with checkpoint.strict the newest is not."""


class SaveFailed(RuntimeError):
    """A checkpoint could not be written; the ones before are untouched."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the verdicts and the numbers of a run rest on."""

    grader_version: str
    data_hash: str
    model_hash: str
    """Of the initial model."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the packages, and the number of threads."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands, apart from the states of its trainer and its buffer."""

    progress: Progress
    provenance: Provenance
    config: dict[str, Any]
    events: int
    """Lines of metrics.jsonl."""
    accuracy: float | None = None
    """Greedy accuracy of the saved model on the held-out questions, if it was measured."""
    run: dict[str, Any] = field(default_factory=dict)
    """Plans and health, in the words of stages.py."""

    @staticmethod
    def of(values: dict[str, Any]) -> "Standing":
        """What `asdict` made of it."""
        named = {**values, "progress": Progress(**values["progress"])}
        return Standing(**{**named, "provenance": Provenance(**values["provenance"])})


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that is whole."""

    folder: Path
    standing: Standing


@dataclass(frozen=True, slots=True)
class Origin:
    """What a session of a run begins with."""

    provenance: Provenance
    saved: Saved | None = None
    """The checkpoint that it goes on from; None: the run begins."""


def draft(run_dir: Path, steps: int) -> Path:
    """An empty folder for the parts of a checkpoint, which `seal` completes.

    Raises:
        SaveFailed: the disk has no room for as much as the last one took.
    """
    before = existing(run_dir)
    needed = SPARE_BYTES + (_size(before[-1]) if before else 0)
    folder = run_dir / "checkpoints" / f"{DRAFT}step_{steps:08d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise SaveFailed(
            f"{folder.parent} has {free / 2**20:,.1f} MiB free, and a checkpoint takes about "
            f"{needed / 2**20:,.1f} MiB; make room, then go on with resume={run_dir}."
        )
    return folder


def seal(folder: Path, standing: Standing, options: CheckpointConfig) -> Path:
    """Turn a draft with all its parts into a checkpoint, then drop the ones nobody needs.

    Returns:
        where it lies.

    Raises:
        SaveFailed: it could not be written, or is not what was written.
    """
    with disk_errors(folder):
        reach("save.parts")
        (folder / STANDING).write_text(json.dumps(asdict(standing), indent=2), encoding="utf-8")
        for file in _files(folder):
            _flush(file)
        reach("save.manifest")
        (folder / MANIFEST).write_text(json.dumps(_inventory(folder), indent=2), encoding="utf-8")
        _flush(folder / MANIFEST)
        _flush(folder)
        reach("save.rename")
        final = _rename(folder)
        reach("save.rotate")
        if problem := problem_with(final):
            raise SaveFailed(f"{final} was written, but {problem}; is the disk sound?")
        _rotate(final.parent.parent, options)
    return final


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """An error of the disk, within the block, becomes `SaveFailed`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise SaveFailed(
            f"{folder} could not be written ({error}); the checkpoints before are untouched: make room, or "
            f"mend the disk, then go on with resume={folder.parent.parent}."
        ) from error


def existing(run_dir: Path) -> list[Path]:
    """Checkpoints of a run that were whole when they were written, oldest first."""
    return sorted(folder for folder in _own_folders(run_dir) if (folder / MANIFEST).is_file())


def _own_folders(run_dir: Path) -> list[Path]:
    """A link is no checkpoint: what it points to must not be rotated away."""
    return sorted(folder for folder in _folder(run_dir).glob("step_*") if not folder.is_symlink())


def problem_with(folder: Path) -> str | None:
    """Why a checkpoint is not what was written, in a few words; None if it is."""
    try:
        inventory = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        present = {str(file.relative_to(folder)) for file in _files(folder)} - {MANIFEST}
        if strays := sorted(present ^ inventory.keys()):
            return f"{strays[0]} {'does not belong to it' if strays[0] in present else 'is missing'}"
        for name, (size, digest) in inventory.items():
            file = folder / name
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size} bytes instead of {size}"
            if _digest(file) != digest:
                return f"{name} has other contents than were written"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({type(error).__name__})"
    return None


def newest(run_dir: Path, strict: bool = False) -> Saved:
    """The last checkpoint of a run that is whole.

    Newer ones that are damaged are named in a warning and set aside.

    Raises:
        ConfigError: the run has none at all.
        DamagedCheckpoint: it has, but none is whole; or with `strict`, the newest is not.
    """
    _complete_drafts(run_dir)
    found = _own_folders(run_dir)
    if not found:
        raise ConfigError(f"resume ({run_dir}) holds no checkpoint; start a new run instead.")
    for folder in reversed(found):
        problem = problem_with(folder)
        if problem is None:
            standing = json.loads((folder / STANDING).read_text(encoding="utf-8"))
            return Saved(folder, Standing.of(standing))
        if strict:
            raise DamagedCheckpoint(
                f"{folder} is damaged: {problem}; with checkpoint.strict=false the run goes back to the one "
                "before it."
            )
        aside = folder.with_name(DAMAGED + folder.name)
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        logger.warning("%s is damaged: %s; it is now %s, and an older one is used.", folder, problem, aside)
    raise DamagedCheckpoint(f"no checkpoint of {run_dir} is whole; start a new run.")


def hash_of_folder(folder: Path, *patterns: str) -> str:
    """sha256 over names and contents of the files in `folder` that match."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}):
        digest.update(f"{file.name} {_digest(file)}\n".encode())
    return digest.hexdigest()


def _folder(run_dir: Path) -> Path:
    return run_dir / "checkpoints"


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in _files(folder))


def _inventory(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and sha256 of every file but the manifest, by its name below `folder`."""
    return {
        str(file.relative_to(folder)): (file.stat().st_size, _digest(file))
        for file in _files(folder)
        if file.name != MANIFEST
    }


def _digest(file: Path) -> str:
    with file.open("rb") as contents:
        return hashlib.file_digest(contents, "sha256").hexdigest()


def _rename(folder: Path) -> Path:
    """Give a whole draft its final name. One that has the same name is kept until then."""
    final = folder.with_name(folder.name.removeprefix(DRAFT))
    shutil.rmtree(final, ignore_errors=True)
    folder.rename(final)
    _flush(final.parent)
    return final


def _complete_drafts(run_dir: Path) -> None:
    """A kill between the last write and the renaming left a draft that is whole."""
    for folder in _folder(run_dir).glob(f"{DRAFT}step_*"):
        if (folder / MANIFEST).is_file() and problem_with(folder) is None:
            _rename(folder)


def _rotate(run_dir: Path, options: CheckpointConfig) -> None:
    found = existing(run_dir)
    kept = {*found[-options.keep_last :], *(_best(found) if options.keep_best else [])}
    for folder in set(found) - kept:
        # its manifest goes first: what a kill leaves of it is no checkpoint
        (folder / MANIFEST).unlink()
        shutil.rmtree(folder)


def _best(folders: Iterable[Path]) -> list[Path]:
    """The one whose accuracy none exceeds, the newest of several; nothing if none was measured."""
    scores = [(json.loads((folder / STANDING).read_text())["accuracy"], folder) for folder in folders]
    measured = [(accuracy, folder) for accuracy, folder in scores if accuracy is not None]
    return [max(measured)[1]] if measured else []


def _flush(path: Path) -> None:
    """Bring a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
