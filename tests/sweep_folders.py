"""Folders as a sweep leaves them, written by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

LEARNING_RATE = "optimizer.learning_rate"


def write_job(
    folder: Path,
    overrides: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    choices: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Path:
    """What Hydra writes before a job begins. `config` has keys such as `optimizer.learning_rate`."""
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    runtime = {"choices": dict(choices or {}), "cwd": str(cwd or folder.parent)}
    (hydra / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    (hydra / "config.yaml").write_text(yaml.safe_dump(nested(config or {})))
    (hydra / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": runtime}}))
    return folder


def finish(folder: Path, greedy: float = 0.5, reason: str = "finished", questions: int = 100) -> Path:
    """What a run leaves behind that came to its end."""
    end = {"eval/greedy": greedy, "eval/pass@1": greedy / 2, "eval/n": float(questions)}
    rows = [
        {"iteration": 0, "step": 0, "seconds": 1, **end, "eval/greedy": 0.1},
        {"iteration": 1, "step": 2, "seconds": 2, "train/entropy": 0.2},
        {"iteration": 1, "step": 4, "seconds": 2, "train/entropy": 0.1, "rollout/entropy": 0.3},
        {"iteration": 1, "step": 4, "seconds": 3, **end},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = {"exit_reason": reason, "steps": 4, "seconds": 3.0, "end": end}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def write_plan(sweep: Path, task: Sequence[str], params: Mapping[str, str] | None = None) -> None:
    """The multirun.yaml of Hydra's own sweeper."""
    sweeper = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "params": params}
    hydra = {
        "sweep": {"dir": str(sweep), "subdir": "${hydra.job.num}"},
        "sweeper": sweeper,
        "overrides": {"task": list(task)},
        "runtime": {"cwd": str(sweep)},
    }
    (sweep / "multirun.yaml").write_text(yaml.safe_dump({"hydra": hydra}))


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Keys with dots as sections."""
    root: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        node = root
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return root
