"""A checkpoint around any model, for tests of what reads checkpoints."""

from pathlib import Path
from shutil import copytree
from typing import Any

from expert_iteration.checkpoint import Provenance, Standing, draft, seal
from expert_iteration.config import CheckpointConfig
from expert_iteration.scheduler import Progress

ORIGIN = Provenance("2", "c0ffee", "decaf", {"torch": "2.13.0"})


def sealed(
    run_dir: Path,
    model: Path,
    steps: int = 8,
    accuracy: float | None = None,
    config: dict[str, Any] | None = None,
) -> Path:
    """A whole checkpoint of a run in `run_dir`, whose trainer has saved the folder `model`."""
    folder = draft(run_dir, steps)
    copytree(model, folder / "model")
    (folder / "trainer.json").write_text("{}")
    progress = Progress(iteration=steps // 8, steps=steps)
    return seal(
        folder, Standing(progress, ORIGIN, config or {}, events=3, accuracy=accuracy), CheckpointConfig()
    )
