"""Optimal values V* of the training prompts, from answers of the reference model (first stage of A*-PO).

The file holds the rewards themselves, so that `values.beta` may change without sampling again:

    {"made_with": {"model.path": "demo", "values.samples": 8, ...},
     "rewards": {"17": [0.0, 1.0, ...], ...}, "solved": [17, ...]}
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import torch

from expert_iteration.advantages import optimal_value
from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.grading import GRADER_VERSION
from expert_iteration.prompts import Data, PromptSet
from expert_iteration.types import Prompt

COMMAND = "python scripts/estimate_values.py"
MAKE = f"make it with `{COMMAND}` and the overrides of the training run"
SAMPLES = "values.samples"
PROMPTS = "training prompts"

Setting: TypeAlias = str | int | float | None


@dataclass
class Samples:
    """What the reference model earned on each prompt."""

    made_with: dict[str, Setting]
    """What the rewards rest on; see `settings`."""
    rewards: dict[int, list[float]] = field(default_factory=dict)
    """Of the answers that were judged, by prompt id; none where the grader abstained from all."""
    solved: set[int] = field(default_factory=set)
    """Prompts with a correct answer."""

    def unjudged(self, prompts: Iterable[Prompt]) -> list[Prompt]:
        """Those of `prompts` that were not asked, or none of whose answers could be judged."""
        return [prompt for prompt in prompts if not self.rewards.get(prompt.id)]

    def write(self, file: Path) -> None:
        """Replace `file` in one piece."""
        state = {"made_with": self.made_with, "rewards": self.rewards, "solved": sorted(self.solved)}
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
            return Samples(dict(state["made_with"]), rewards, set(map(int, state["solved"])))
        except FileNotFoundError as error:
            raise ConfigError(f"values.path ({file}) does not exist; {MAKE}.") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"values.path ({file}) holds no values ({type(error).__name__}: {error}); name another file, "
                f"and {MAKE}."
            ) from error


def settings(config: RunConfig, train: PromptSet) -> dict[str, Setting]:
    """What the rewards of the reference model rest on.

    The seed is no part of it: values serve every seed of a run that asks the same questions.
    """
    sampling, reward = config.sampling, config.reward
    return {
        PROMPTS: fingerprint(train.prompts),
        "model.path": config.model.path,
        "model.revision": config.model.revision,
        SAMPLES: config.values.samples,
        "sampling.temperature": sampling.temperature,
        "sampling.min_tokens": sampling.min_tokens,
        "sampling.max_tokens": sampling.max_tokens,
        "reward.format": reward.format,
        "reward.brevity": reward.brevity,
        "reward.variety": reward.variety,
        "grader version": GRADER_VERSION,
    }


def fingerprint(prompts: Iterable[Prompt]) -> str:
    """sha256 over what is asked, how, and what counts as right, in order."""
    digest = hashlib.sha256()
    for prompt in prompts:
        row = [prompt.id, prompt.text, prompt.gold, prompt.style, prompt.stop]
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def opened(config: RunConfig, data: Data) -> Samples:
    """What values.path holds so far; nothing yet if there is no such file.

    Raises:
        ConfigError: values.path is null, or the file belongs to another run.
    """
    file, here = path_of(config), settings(config, data.train)
    if not file.exists():
        return Samples(here)
    found = Samples.read(file)
    _refuse_others(found, here, file)
    return found


def path_of(config: RunConfig) -> Path:
    """Where the values are.

    Raises:
        ConfigError: values.path is null.
    """
    if config.values.path is None:
        raise ConfigError(
            f"values.path is null; name the file of the values, as in values.path=values.json, and {MAKE}."
        )
    return Path(config.values.path)


def with_values(config: RunConfig, data: Data) -> Data:
    """The same data, each training prompt with its V*.

    Prompts that no sample solved are left out if `values.drop_unsolved`.

    Raises:
        ConfigError: there are no values, or they belong to another run, or some prompt has none, or no
            prompt is left.
    """
    file, here = path_of(config), settings(config, data.train)
    found = Samples.read(file)
    # a value may rest on any number of answers
    _refuse_others(found, {key: value for key, value in here.items() if key != SAMPLES}, file)
    prompts = data.train.prompts
    _refuse_gaps(found, config, prompts)
    if config.values.drop_unsolved:
        prompts = tuple(prompt for prompt in prompts if prompt.id in found.solved)
        if not prompts:
            raise ConfigError(
                f"values.drop_unsolved=true leaves none of {len(data.train)} prompts: none is solved in "
                f"values.path ({file}); use values.drop_unsolved=false, or easier prompts."
            )
    values = optimal_values({prompt.id: found.rewards[prompt.id] for prompt in prompts}, config.values.beta)
    prompts = tuple(replace(prompt, value=values[prompt.id]) for prompt in prompts)
    return replace(data, train=replace(data.train, prompts=prompts))


def optimal_values(rewards: Mapping[int, list[float]], beta: float) -> dict[int, float]:
    """V* of each prompt id."""
    return {
        prompt: optimal_value(torch.tensor(earned, dtype=torch.float64), beta).item()
        for prompt, earned in rewards.items()
    }


def _refuse_others(found: Samples, here: Mapping[str, Setting], file: Path) -> None:
    for key, value in here.items():
        if (there := found.made_with.get(key)) != value:
            raise ConfigError(
                f"values.path ({file}) was made with other {key} ({_short(there)}, here {_short(value)}); "
                f"bring that back, or name another file, and {MAKE}."
            )


def _short(setting: Setting) -> str:
    """A digest is told apart by its first digits."""
    text = str(setting)
    return text[:12] if len(text) == hashlib.sha256().digest_size * 2 else text


def _refuse_gaps(found: Samples, config: RunConfig, prompts: Iterable[Prompt]) -> None:
    """Refuse prompts without a value, unless they were asked and are left out anyway."""
    without = found.unjudged(prompts)
    gaps = [
        prompt.id for prompt in without if prompt.id not in found.rewards or not config.values.drop_unsolved
    ]
    if not gaps:
        return
    asked = sum(prompt in found.rewards for prompt in gaps)
    remedy = ", or leave them out with values.drop_unsolved=true" if asked == len(gaps) else ""
    raise ConfigError(
        f"values.path ({config.values.path}) lacks {len(gaps)} of the training prompts, such as {gaps[:3]}, "
        f"{asked} of them because no answer could be judged; run `{COMMAND}` with the overrides of this run, "
        f"which goes on where it stopped{remedy}."
    )
