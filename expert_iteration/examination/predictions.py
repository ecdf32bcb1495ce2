"""predictions.jsonl: each answer of an evaluation with its verdict, one a line, written as it is finished."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

from expert_iteration.config import ConfigError
from expert_iteration.evaluation import Mark, Marks
from expert_iteration.reporting.jsonl import encode, read_rows, replace_file
from expert_iteration.rounds import Round
from expert_iteration.types import Finish, Outcome, Prompt, Rollout, Verdict
from expert_iteration.votes import vote

FILE = "predictions.jsonl"

Place: TypeAlias = tuple[Round, int]
"""Which answer: of a round, to the question with an id."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One judged answer."""

    prompt_id: int
    task: str
    level: str
    subject: str
    question: str
    gold: str
    temperature: float
    """0: greedy."""
    seed: int
    sample: int
    text: str
    """What the model said."""
    answer: str | None
    """The final answer in it, in the spelling that is voted on."""
    outcome: str
    reason: str
    format: float
    length: int
    """Tokens."""
    finish: str
    counts: Mapping[str, int]

    @staticmethod
    def of(round_: Round, prompt: Prompt, rollout: Rollout, verdict: Verdict) -> "Prediction":
        return Prediction(
            prompt.id,
            prompt.task,
            prompt.level,
            prompt.subject,
            prompt.question,
            prompt.gold,
            round_.temperature,
            round_.seed,
            round_.sample,
            rollout.text,
            vote(prompt.style, rollout.text),
            verdict.outcome.value,
            verdict.reason,
            verdict.format_reward,
            len(rollout.token_ids),
            rollout.finish.value,
            dict(verdict.counts),
        )

    @property
    def place(self) -> Place:
        return Round(self.temperature, self.seed, self.sample), self.prompt_id

    @property
    def mark(self) -> Mark:
        verdict = Verdict(Outcome(self.outcome), self.reason)
        return Mark(
            verdict.success,
            self.format,
            verdict.abstains,
            self.finish == Finish.LENGTH,
            self.length,
            self.answer,
            self.counts,
        )

    @property
    def asked(self) -> tuple[str, str, str]:
        """What makes it an answer to the same question as another one."""
        return self.task, self.question, self.gold


Predictions: TypeAlias = dict[Place, Prediction]


def read_predictions(folder: Path) -> Predictions:
    """Those of an evaluation, none before its first one, without the line that a kill may have left torn.

    Raises:
        ConfigError: a line is something else.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        found = [Prediction(**row) for row in read_rows(path)]
        return {one.place: one for one in found}
    except TypeError as error:
        raise ConfigError(
            f"{path} holds no predictions ({error}); name the folder of an evaluation."
        ) from error


def marks_of(predictions: Predictions, rounds: Iterable[Round], prompts: Sequence[Prompt]) -> Marks:
    """What counts of the answers of `rounds`, all of which are there."""
    return {each: [predictions[each, prompt.id].mark for prompt in prompts] for each in rounds}


class PredictionFile:
    """predictions.jsonl while it grows. Used as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Open it; what is there already stays, without a torn last line.

        Raises:
            ConfigError: it holds something else.
        """
        path = folder / FILE
        self.known: Predictions = read_predictions(folder)
        """All that was written so far."""
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            replace_file(path, "".join(encode(_row(one)) for one in self.known.values()))
        self._file = path.open("a", encoding="ascii")

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Write them down before it returns: a kill of this process does not undo it."""
        self._file.write("".join(encode(_row(one)) for one in predictions))
        self._file.flush()
        self.known |= {one.place: one for one in predictions}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _row(prediction: Prediction) -> dict[str, Any]:
    return asdict(prediction)
