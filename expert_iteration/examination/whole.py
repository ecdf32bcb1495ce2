"""A whole evaluation in a folder: what nobody has answered yet is asked, then all answers are measured.

settings.json      what the answers rest on, written first
predictions.jsonl  each answer with its verdict, as soon as it is finished
evaluation.json    the measures, written last: a function of the two
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.examination.answering import Judge, Order, Sampler, answer, missing
from expert_iteration.examination.assessment import EVALUATION, assess
from expert_iteration.examination.predictions import FILE, PredictionFile, read_predictions
from expert_iteration.examination.rival import Rival
from expert_iteration.reporting.jsonl import write_json
from expert_iteration.types import Prompt
from expert_iteration.values import fingerprint

SETTINGS = "settings.json"
MODEL_PATH = "model.path"

Settings: TypeAlias = dict[str, str | int | float]


@dataclass(frozen=True)
class Examination:
    """One evaluation, whose folder is its own."""

    config: RunConfig
    folder: Path
    prompts: Sequence[Prompt]
    settings: Settings
    rival: Rival | None

    @staticmethod
    def of(config: RunConfig, folder: Path, prompts: Sequence[Prompt], settings: Settings) -> "Examination":
        """
        Raises:
            ConfigError: `folder` has an evaluation that is not to go on, or that goes on otherwise than it
                began; or eval.against cannot be compared with.
        """
        against = config.eval.against
        rival = None if against is None else Rival.of(Path(against), prompts)
        if config.resume is None:
            _begin(folder, settings)
        else:
            _refuse_changes(folder, settings)
        return Examination(config, folder, prompts, settings, rival)

    def unanswered(self) -> list[Order]:
        """What is still to be asked."""
        return missing(self.config, self.prompts, read_predictions(self.folder))

    def ask(self, orders: Sequence[Order], engine: Sampler, grader: Judge) -> Iterator[int]:
        """Have `orders` answered.

        Yields:
            The number of answers that were written down, each time some were.
        """
        with PredictionFile(self.folder) as file:
            yield from answer(self.config, orders, engine, grader, file)

    def assess(self) -> dict[str, Any]:
        """Measure all answers and write evaluation.json; returns what it holds."""
        known = read_predictions(self.folder)
        result: dict[str, Any] = {"settings": self.settings, **assess(self.config, self.prompts, known)}
        if self.rival is not None:
            result["against"] = self.rival.compare(self.config, self.prompts, known)
        write_json(self.folder / EVALUATION, result)
        return result


def settings_of(config: RunConfig, prompts: Sequence[Prompt], model_hash: str, grader: str) -> Settings:
    """What the answers of an evaluation and their verdicts rest on.

    Which of them are asked for (temperatures, seeds, samples) is no part of it: an evaluation that goes on
    may ask for more.
    """
    sampling, model = config.sampling, config.model
    return {
        MODEL_PATH: model.path,
        "model sha256": model_hash,
        "model.engine_dtype": model.engine_dtype.value,
        "questions": len(prompts),
        "prompts sha256": fingerprint(prompts),
        "sampling.min_tokens": sampling.min_tokens,
        "sampling.max_tokens": sampling.max_tokens,
        "grader version": grader,
    }


def _begin(folder: Path, settings: Settings) -> None:
    if (folder / FILE).exists():
        raise ConfigError(
            f"{folder} holds an evaluation already; go on with it by resume={folder}, or name another "
            "hydra.run.dir."
        )
    write_json(folder / SETTINGS, settings)


def _refuse_changes(folder: Path, settings: Settings) -> None:
    try:
        before: Mapping[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"resume ({folder}) holds no evaluation ({type(error).__name__}); start a new one."
        ) from error
    changed = [
        f"{key} {before.get(key)!r} -> {value!r}"
        for key, value in settings.items()
        if key != MODEL_PATH and before.get(key) != value
    ]
    if changed:
        raise ConfigError(
            f"resume ({folder}): {', '.join(changed)}; bring back what it began with, or start a new "
            "evaluation."
        )
