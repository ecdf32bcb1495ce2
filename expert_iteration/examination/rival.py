"""Another evaluation of the same questions, and how this one differs from it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.evaluation import Mark, Values, can_vote, mean_values, sampled_values
from expert_iteration.examination.assessment import EVALUATION
from expert_iteration.examination.predictions import FILE, Predictions, read_predictions
from expert_iteration.measures import bootstrap
from expert_iteration.rounds import Round, ks_of, rounds_of
from expert_iteration.types import Prompt

Answers: TypeAlias = dict[int, list[Mark]]
"""All answers to each question that has all of them, by its id."""


@dataclass(frozen=True)
class Rival:
    """The answers of another evaluation."""

    folder: Path
    predictions: Predictions

    @staticmethod
    def of(folder: Path, prompts: Sequence[Prompt]) -> "Rival":
        """
        Raises:
            ConfigError: there is none in `folder`, or it asks other questions than `prompts`.
        """
        if not (folder / FILE).is_file():
            raise ConfigError(
                f"eval.against ({folder}) holds no {FILE}; name the folder of another evaluation."
            )
        predictions = read_predictions(folder)
        there = {one.prompt_id: one.asked for one in predictions.values()}
        here = {prompt.id: (prompt.task, prompt.question, prompt.gold) for prompt in prompts}
        finished = (folder / EVALUATION).is_file()
        # one that goes on, or was killed, has not asked all of its questions
        compared = here.keys() | there.keys() if finished else there.keys()
        if differing := sum(here.get(one) != there.get(one) for one in compared):
            raise ConfigError(
                f"eval.against ({folder}) has other questions: {differing:,} of {len(compared):,} differ; "
                "evaluate both with the same task, data and eval.limit."
            )
        return Rival(folder, predictions)

    def compare(
        self, config: RunConfig, prompts: Sequence[Prompt], predictions: Predictions
    ) -> dict[str, Any]:
        """Differences at each temperature that both have, on the questions that both have answered."""
        rounds = set(rounds_of(config))
        asked = {place: one for place, one in predictions.items() if place[0] in rounds}
        ours, theirs = by_temperature(asked), by_temperature(self.predictions)
        return {
            "folder": str(self.folder),
            "temperatures": [
                {"temperature": one, **_difference(config, prompts, ours[one], theirs[one])}
                for one in sorted(ours.keys() & theirs.keys())
                if ours[one].keys() & theirs[one].keys()
            ],
        }


def by_temperature(predictions: Predictions) -> dict[float, Answers]:
    """Of each temperature the questions that have an answer in all of its rounds."""
    answers: dict[float, Answers] = defaultdict(lambda: defaultdict(list))
    rounds: dict[float, set[Round]] = defaultdict(set)
    for (each, prompt_id), one in predictions.items():
        rounds[each.temperature].add(each)
        answers[each.temperature][prompt_id].append(one.mark)
    return {
        temperature: {prompt: own for prompt, own in found.items() if len(own) == len(rounds[temperature])}
        for temperature, found in answers.items()
    }


def _difference(
    config: RunConfig, prompts: Sequence[Prompt], ours: Answers, theirs: Answers
) -> dict[str, Any]:
    """Of each measure that both have: the two, and their difference with its paired 95% interval."""
    both = [prompt for prompt in prompts if prompt.id in ours and prompt.id in theirs]
    here, there = (_values(config, both, [answers[one.id] for one in both]) for answers in (ours, theirs))
    return {
        "questions": len(both),
        "measures": {name: paired(here[name], there[name]) for name in here if name in there},
    }


def _values(config: RunConfig, prompts: Sequence[Prompt], answers: Sequence[Sequence[Mark]]) -> Values:
    """Accuracies and lengths of the n answers to each question; n may differ between two evaluations."""
    n = len(answers[0])
    values = sampled_values([k for k in ks_of(config.eval) if k <= n], answers, can_vote(prompts))
    values.pop(f"avg@{n}", None)
    return values | mean_values(answers)


def paired(here: Sequence[float], there: Sequence[float]) -> dict[str, float]:
    """Two measures of the same questions; `low` and `high` are of a bootstrap over their differences.

    Also on how many questions each is the better one.
    """
    differences = [one - other for one, other in zip(here, there, strict=True)]
    low, high = bootstrap(differences)
    return {
        "here": fmean(here),
        "there": fmean(there),
        "difference": fmean(differences),
        "low": low,
        "high": high,
        "higher_here": sum(one > 0 for one in differences),
        "higher_there": sum(one < 0 for one in differences),
    }
