"""A checkpoint as a Hugging Face folder: what transformers and vLLM load, and a model card.

The folder is written under a temporary name beside its own, and renamed when it is whole. The run is only
read.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError

from expert_iteration.checkpoint import (
    MANIFEST,
    STANDING,
    DamagedCheckpoint,
    SaveFailed,
    Standing,
    existing,
    problem_with,
)
from expert_iteration.config import ConfigError
from expert_iteration.export.model_card import facts_of, model_card
from expert_iteration.model_files import ADAPTER, MODEL_FILES

MODEL = "model"
"""Folder of a checkpoint that holds a whole model, or a LoRA adapter of peft."""
RECORD = "export.json"
"""Says which checkpoint a folder was made from."""


@dataclass(frozen=True, slots=True)
class Record:
    checkpoint: str
    manifest: str
    """sha256 of its manifest."""
    adapter_only: bool

    @staticmethod
    def of(checkpoint: Path, adapter_only: bool) -> "Record":
        digest = hashlib.sha256((checkpoint / MANIFEST).read_bytes()).hexdigest()
        return Record(checkpoint.name, digest, adapter_only)


def find_checkpoint(source: Path, step: int | None = None, best: bool = False) -> Path:
    """A checkpoint that is whole: `source` itself, or one of the run in it.

    Args:
        step: optimizer steps after which it was written; None: the newest.
        best: the one with the best greedy accuracy, the newest of several.

    Raises:
        ConfigError: there is none like that.
        DamagedCheckpoint: it is not what was written.
    """
    is_checkpoint = (source / MANIFEST).is_file()
    if is_checkpoint and (best or step is not None):
        raise ConfigError(
            f"{source} is a checkpoint already; name the run's folder to choose one of several."
        )
    checkpoint = source if is_checkpoint else _of_run(source, step, best)
    if problem := problem_with(checkpoint):
        raise DamagedCheckpoint(f"{checkpoint} is damaged: {problem}; choose another one by --step.")
    return checkpoint


def export(checkpoint: Path, out: Path, adapter_only: bool = False) -> None:
    """Write the model of a checkpoint into the folder `out`, which must be empty or absent.

    An adapter is merged into its base model, which its configuration names; with `adapter_only` it is copied
    as it is.

    Raises:
        ConfigError: `out` holds something, or the checkpoint holds no such model.
        SaveFailed: the disk is full or broken; `out` is as it was.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty; name a folder that is, or a new one.")
    with _draft_of(out) as folder:
        facts = facts_of(checkpoint, _standing(checkpoint), adapter_only)
        _write_model(checkpoint / MODEL, folder, adapter_only)
        (folder / "README.md").write_text(model_card(facts), encoding="utf-8")
        record = asdict(Record.of(checkpoint, adapter_only))
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def is_export_of(out: Path, checkpoint: Path, adapter_only: bool) -> bool:
    """Whether `export` made `out` from this very checkpoint; its files may have been edited since."""
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(record == asdict(Record.of(checkpoint, adapter_only)))


def _of_run(run: Path, step: int | None, best: bool) -> Path:
    found = existing(run)
    if not found:
        raise ConfigError(f"{run} holds no checkpoint; name the folder of a run that has saved one.")
    if step is not None:
        steps = {_standing(folder).progress.steps: folder for folder in found}
        if step not in steps:
            raise ConfigError(f"{run} has no checkpoint of step {step}, only of {sorted(steps)}; name one.")
        return steps[step]
    if best:
        scores = [
            (accuracy, folder) for folder in found if (accuracy := _standing(folder).accuracy) is not None
        ]
        if not scores:
            raise ConfigError(f"no checkpoint of {run} was evaluated; leave --best out, or choose by --step.")
        return max(scores)[1]
    return found[-1]


def _standing(checkpoint: Path) -> Standing:
    try:
        return Standing.of(json.loads((checkpoint / STANDING).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(
            f"{checkpoint} is damaged: {STANDING} cannot be read ({type(error).__name__}); choose another "
            "one by --step."
        ) from error


@contextmanager
def _draft_of(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` when the block ends well, and vanishes when it does not."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            yield folder
            folder.chmod(0o755)
            folder.replace(out)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise SaveFailed(f"{out} could not be written ({error}); make room, or mend the disk.") from error


def _write_model(source: Path, folder: Path, adapter_only: bool) -> None:
    is_adapter = (source / ADAPTER).is_file()
    if adapter_only and not is_adapter:
        raise ConfigError(f"{source} holds a whole model, no adapter; leave --adapter-only out.")
    if is_adapter and not adapter_only:
        from expert_iteration.export.adapters import merge_adapter

        merge_adapter(source, folder)
        return
    weights = "adapter_model.safetensors" if is_adapter else "*.safetensors"
    for needed in (weights, *(() if is_adapter else ("config.json", "tokenizer.json"))):
        if not any(source.glob(needed)):
            raise ConfigError(f"{source} holds no {needed}; export a checkpoint that has one.")
    for file in {file for pattern in MODEL_FILES for file in source.glob(pattern)}:
        if file.is_file() and not file.is_symlink():
            shutil.copyfile(file, folder / file.name)
