"""evaluation.json: the measures of an evaluation with their 95% intervals, by part, and kinds of answers."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, TypeAlias

from expert_iteration.config import RunConfig
from expert_iteration.evaluation import (
    Mark,
    Marks,
    Values,
    answers_at,
    can_vote,
    greedy_values,
    instruction_rates,
    mean_values,
    metrics_of,
    parts_of,
    sampled_values,
)
from expert_iteration.examination.predictions import Prediction, Predictions, marks_of
from expert_iteration.measures import bootstrap
from expert_iteration.reporting.statistics import wilson
from expert_iteration.rounds import GREEDY, Round, ks_of, rounds_of, sampled_rounds, temperatures_of
from expert_iteration.types import Prompt

EVALUATION = "evaluation.json"
EXAMPLES = 3
"""Answers of each category that are shown."""
LONGEST_EXAMPLE = 2_000
"""Characters of an answer that is shown; predictions.jsonl has all of it."""
CATEGORIES = (
    "format_1_answer_1",
    "format_1_answer_0",
    "format_0_answer_0",
    "format_0_answer_1",
    "not_judged",
)
"""Answers by whether their format and what they say are right, as CS336 counts those of its baseline."""

Estimate: TypeAlias = dict[str, float]
"""`value` and its 95% interval, from `low` to `high`."""
Estimates: TypeAlias = dict[str, Estimate]


def assess(config: RunConfig, prompts: Sequence[Prompt], predictions: Predictions) -> dict[str, Any]:
    """All that the answers say, a function of them alone.

    Args:
        predictions: hold every answer that the evaluation asks for; others are not looked at.
    """
    marks = marks_of(predictions, rounds_of(config), prompts)
    everywhere = range(len(prompts))
    return {
        "questions": len(prompts),
        "answers": len(prompts) * len(marks),
        **_measured(config, prompts, marks, everywhere),
        "by_seed": _by_seed(config, prompts, marks),
        "parts": {
            part: {"questions": len(places)} | _measured(config, prompts, marks, places)
            for part, places in parts_of(prompts).items()
        },
        "categories": _categories(config, prompts, predictions),
        "metrics": metrics_of(config, prompts, marks),
    }


def estimate(values: Sequence[float], shares: bool) -> Estimate:
    """A mean over questions.

    Args:
        shares: whether each value says of one answer that something is so (1) or not (0), and the interval is
            Wilson's; otherwise it is that of a bootstrap over questions.
    """
    mean = fmean(values)
    low, high = wilson(mean, len(values)) if shares else bootstrap(values)
    return {"value": mean, "low": low, "high": high}


def _measured(
    config: RunConfig, prompts: Sequence[Prompt], marks: Marks, places: Sequence[int]
) -> dict[str, Any]:
    """Of the questions at `places`: greedy measures, and those at each temperature."""
    greedy = [marks[GREEDY][place] for place in places]
    asked = [prompts[place] for place in places]
    sampled = []
    for temperature in temperatures_of(config):
        answers = answers_at(config, marks, temperature)
        own = [answers[place] for place in places]
        sampled.append({"temperature": temperature, **_sampled(config, asked, own)})
    measures = _estimates(greedy_values(greedy), single=True) | _instructions(greedy)
    return {"greedy": measures, "sampled": sampled}


def _instructions(marks: Sequence[Mark]) -> Estimates:
    """The accuracies of IFEval, where there are instructions; intervals as if they were independent."""
    rates = instruction_rates(marks)
    found = {}
    for kind in ("prompt", "instruction"):
        for manner in ("strict", "loose"):
            rate = rates.get(f"eval/{kind}_{manner}")
            if rate is not None:
                low, high = wilson(rate, round(rates[f"eval/n/{kind}"]))
                found[f"{kind}_{manner}"] = {"value": rate, "low": low, "high": high}
    return found


def _sampled(
    config: RunConfig, prompts: Sequence[Prompt], answers: Sequence[Sequence[Mark]]
) -> dict[str, Any]:
    n = len(answers[0])
    values = sampled_values(ks_of(config.eval), answers, can_vote(prompts)) | mean_values(answers)
    return {"answers_per_question": n, "measures": _estimates(values, single=n == 1)}


def _estimates(values: Values, single: bool) -> Estimates:
    return {name: estimate(each, single and name != "length") for name, each in values.items()}


def _by_seed(config: RunConfig, prompts: Sequence[Prompt], marks: Marks) -> list[dict[str, Any]]:
    """The sampled measures of each seed alone, where there are several: how much chance decides."""
    if len(config.eval.seeds) == 1:
        return []
    found = []
    for temperature in temperatures_of(config):
        for seed in config.eval.seeds:
            rounds = [marks[each] for each in sampled_rounds(config, temperature) if each.seed == seed]
            answers = [list(own) for own in zip(*rounds, strict=True)]
            values = sampled_values(ks_of(config.eval), answers, can_vote(prompts))
            means = {name: fmean(each) for name, each in values.items()}
            found.append({"temperature": temperature, "seed": seed, "measures": means})
    return found


def _categories(
    config: RunConfig, prompts: Sequence[Prompt], predictions: Predictions
) -> list[dict[str, Any]]:
    """Counts, shares and examples of each category: of the greedy answers, and at each temperature."""
    asked: list[tuple[float, list[Round]]] = [(0.0, [GREEDY])]
    asked += [(one, sampled_rounds(config, one)) for one in temperatures_of(config) if one > 0]
    return [
        {
            "temperature": temperature,
            "kinds": _kinds([predictions[each, prompt.id] for prompt in prompts for each in rounds]),
        }
        for temperature, rounds in asked
    ]


def _kinds(answers: Sequence[Prediction]) -> dict[str, dict[str, Any]]:
    by_kind: dict[str, list[Prediction]] = {name: [] for name in CATEGORIES}
    for one in answers:
        by_kind[category(one)].append(one)
    return {
        name: {
            "count": len(own),
            "share": len(own) / len(answers),
            "examples": [_example(one) for one in own[:EXAMPLES]],
        }
        for name, own in by_kind.items()
    }


def category(one: Prediction) -> str:
    """A row of `CATEGORIES`."""
    mark = one.mark
    return "not_judged" if mark.abstained else f"format_{mark.format >= 1:d}_answer_{mark.success:d}"


def _example(one: Prediction) -> Mapping[str, Any]:
    return {
        "prompt_id": one.prompt_id,
        "question": one.question[:LONGEST_EXAMPLE],
        "gold": one.gold[:LONGEST_EXAMPLE],
        "text": one.text[:LONGEST_EXAMPLE],
        "reason": one.reason,
    }
