"""Small datasets and configurations that the tests of data loading share."""

import json
from pathlib import Path
from typing import Any

from expert_iteration.choices import OnBadRow
from expert_iteration.config import (
    DataConfig,
    DatasetConfig,
    ModelConfig,
    PromptConfig,
    RunConfig,
    SamplingConfig,
    TaskConfig,
)

SHARED = Path(__file__).parents[2] / "shared" / "data"
"""Whole published datasets, where they are at hand."""


def write(folder: Path, **files: list[dict[str, Any]]) -> str:
    """Write ``name.jsonl`` for each list of rows; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


def sums(*numbers: int, **more: Any) -> list[dict[str, Any]]:
    """Rows for `jsonl`, one for each number."""
    return [{"question": f"What is {n} and 1?", "gold": str(n + 1)} | more for n in numbers]


def dataset(kind: type[DatasetConfig] = DatasetConfig, **keys: Any) -> Any:
    """A dataset or task whose prompt is the bare question; keys of the prompt may be given too."""
    asked: dict[str, Any] = {"template": "question_only", "style": "r1_zero"}
    asked |= {key: keys.pop(key) for key in list(keys) if key in PromptConfig.__dataclass_fields__}
    return kind(**{"name": "jsonl", "max_tokens": 16, "prompt": PromptConfig(**asked)} | keys)


def run_config(on_bad_row: OnBadRow = OnBadRow.drop, **task: Any) -> RunConfig:
    """A run of one task, or with `members` of a mixture."""
    chosen = TaskConfig(name="mixture", **task) if "members" in task else dataset(TaskConfig, **task)
    return RunConfig(
        task=chosen,
        data=DataConfig(on_bad_row),
        sampling=SamplingConfig(max_tokens=16),
        model=ModelConfig(max_length=200),
    )
