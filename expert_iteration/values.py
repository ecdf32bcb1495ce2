"""Optimal values V* of the training prompts, from answers of the reference model (first stage of A*-PO).

The file holds the rewards themselves, so that `values.beta` may change without sampling again:

    {"data": sha256 of the data, "model": its path, "samples": 8, "rewards": {"17": [0.0, 1.0, ...], ...}}
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from expert_iteration.advantages import optimal_value
from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.prompts import Data

COMMAND = "python scripts/estimate_values.py"


@dataclass
class Samples:
    """What the reference model earned on each prompt."""

    data: str
    """Hash of the data that the prompt ids belong to."""
    model: str
    samples: int
    """Answers to each prompt."""
    rewards: dict[int, list[float]] = field(default_factory=dict)
    """Of the answers that were judged, by prompt id."""

    def write(self, file: Path) -> None:
        """Replace `file` in one piece."""
        state = {"data": self.data, "model": self.model, "samples": self.samples, "rewards": self.rewards}
        temporary = file.with_name(f"tmp-{file.name}")
        with temporary.open("w", encoding="utf-8") as out:
            json.dump(state, out)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)

    @staticmethod
    def read(file: Path) -> "Samples":
        """What `write` wrote.

        Raises:
            ConfigError: the file is missing or something else.
        """
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            rewards = {int(prompt): list(map(float, earned)) for prompt, earned in state["rewards"].items()}
            return Samples(str(state["data"]), str(state["model"]), int(state["samples"]), rewards)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"values.path ({file}) holds no values ({type(error).__name__}: {error}); make it with "
                f"`{COMMAND}` and the overrides of this run."
            ) from error


def with_values(config: RunConfig, data: Data) -> Data:
    """The same data, each training prompt with its V*.

    Prompts that no sample solved are left out if `values.drop_unsolved`.

    Raises:
        ConfigError: there are no values, or they belong to other data, or some prompt has none.
    """
    if config.values.path is None:
        raise ConfigError(
            f"algorithm.name={config.algorithm.name} needs values.path: estimate the values of its prompts "
            f"with `{COMMAND}` and the overrides of this run."
        )
    found = Samples.read(Path(config.values.path))
    if found.data != data.hash:
        raise ConfigError(
            f"values.path ({config.values.path}) was made for other data ({found.data[:12]}, here "
            f"{data.hash[:12]}); run `{COMMAND}` with the overrides of this run."
        )
    missing = [prompt.id for prompt in data.train.prompts if not found.rewards.get(prompt.id)]
    if missing:
        raise ConfigError(
            f"values.path ({config.values.path}) lacks {len(missing)} of {len(data.train)} prompts, such as "
            f"{missing[:3]}; run `{COMMAND}` with the overrides of this run, which goes on where it stopped."
        )
    values = optimal_values(found.rewards, config.values.beta)
    prompts = [replace(prompt, value=values[prompt.id]) for prompt in data.train.prompts]
    if config.values.drop_unsolved:
        prompts = [prompt for prompt in prompts if any(found.rewards[prompt.id])]
    return replace(data, train=replace(data.train, prompts=tuple(prompts)))


def optimal_values(rewards: Mapping[int, list[float]], beta: float) -> dict[int, float]:
    """V* of each prompt id."""
    return {
        prompt: optimal_value(torch.tensor(earned, dtype=torch.float64), beta).item()
        for prompt, earned in rewards.items()
    }
