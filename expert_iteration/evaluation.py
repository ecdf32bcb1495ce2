"""How good is the policy? Judged answers to held-out questions, never to training prompts."""

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from expert_iteration.config import RunConfig
from expert_iteration.grading.styles import INSTRUCTION_STYLE
from expert_iteration.measures import majority_at_k, pass_at_k
from expert_iteration.rounds import GREEDY, Round, ks_of, rounds_of, sampled_rounds, temperatures_of
from expert_iteration.types import Finish, Metrics, Prompt, Rollout, Verdict
from expert_iteration.votes import vote

Judged: TypeAlias = list[tuple[Rollout, Verdict]]
Answer: TypeAlias = Callable[[Sequence[Prompt], float, int], Awaitable[Judged]]
"""(prompts, temperature, seed) -> one judged answer to each prompt, in order."""

_NOT_IN_KEYS = re.compile(r"\W+")


@dataclass(frozen=True, slots=True)
class Mark:
    """What counts of one judged answer."""

    success: bool
    format: float
    abstained: bool
    truncated: bool
    length: int
    """Tokens."""
    vote: str | None
    """Its final answer, for the majority vote."""
    counts: Mapping[str, int]
    """Instructions asked and met, where the style counts them."""


Marks: TypeAlias = Mapping[Round, Sequence[Mark]]
"""Of each round, one for each question, in order."""
Values: TypeAlias = dict[str, list[float]]
"""Of each measure, one number for each question, in order; the measure is their mean."""


async def evaluate(answer: Answer, prompts: Sequence[Prompt], config: RunConfig) -> Metrics:
    """Ask all rounds of `config.eval`; the metrics of their answers."""
    marks: dict[Round, list[Mark]] = {}
    for each in rounds_of(config):
        judged = await answer(prompts, each.temperature, each.engine_seed)
        marks[each] = [mark(prompt, *one) for prompt, one in zip(prompts, judged, strict=True)]
    return metrics_of(config, prompts, marks)


def mark(prompt: Prompt, rollout: Rollout, verdict: Verdict) -> Mark:
    return Mark(
        verdict.success,
        verdict.format_reward,
        verdict.abstains,
        rollout.finish is Finish.LENGTH,
        len(rollout.token_ids),
        vote(prompt.style, rollout.text),
        verdict.counts,
    )


def metrics_of(config: RunConfig, prompts: Sequence[Prompt], marks: Marks) -> Metrics:
    """Accuracies as ``eval/...``, all rates as shares in [0, 1].

    The format rate and whatever is broken down belong to the greedy answers. Answers on which the
    grader abstained count as not solved, and their share is reported. With several temperatures, sampled
    measures of all but the first end in ``/temperature_<t>``.
    """
    greedy = greedy_values(marks[GREEDY])
    metrics = {f"eval/{name}": fmean(values) for name, values in greedy.items()}
    metrics["eval/n"] = float(len(prompts))
    metrics["eval/abstained"] = fmean(one.abstained for round_ in marks.values() for one in round_)
    first, *others = temperatures_of(config)
    metrics |= {f"eval/{name}": value for name, value in _sampled(config, prompts, marks, first).items()}
    for temperature in others:
        measured = _sampled(config, prompts, marks, temperature)
        metrics |= {f"eval/{name}/temperature_{temperature:g}": value for name, value in measured.items()}
    return metrics | breakdown(prompts, marks[GREEDY]) | instruction_rates(marks[GREEDY])


def greedy_values(marks: Sequence[Mark]) -> Values:
    """Of one answer to each question: accuracy (`greedy`), format rate, and the like."""
    return {"greedy": [float(one.success) for one in marks]} | mean_values([[one] for one in marks])


def mean_values(answers: Sequence[Sequence[Mark]]) -> Values:
    """Means over the answers to each question: format rate, what went wrong, tokens."""
    return {
        "format": [fmean(one.format for one in own) for own in answers],
        "truncated": [fmean(one.truncated for one in own) for own in answers],
        "abstained": [fmean(one.abstained for one in own) for own in answers],
        "length": [fmean(one.length for one in own) for own in answers],
    }


def sampled_values(ks: Sequence[int], answers: Sequence[Sequence[Mark]], votes: bool = True) -> Values:
    """pass@k, avg@n and maj@k of the n answers to each question.

    avg@n is pass@1 by its other name, and maj@1 and maj@2 would be, too.

    Args:
        answers: of each question.
        votes: whether the answers can be voted on.
    """
    n = len(answers[0])
    right = [[one.success for one in own] for own in answers]
    values = {f"pass@{k}": [pass_at_k(n, sum(own), k) for own in right] for k in ks}
    if n > 1:
        values[f"avg@{n}"] = values["pass@1"]
    for k in ks if votes else ():
        if k > 2:
            values[f"maj@{k}"] = [
                majority_at_k([one.vote for one in own], is_right, k)
                for own, is_right in zip(answers, right, strict=True)
            ]
    return values


def answers_at(config: RunConfig, marks: Marks, temperature: float) -> list[list[Mark]]:
    """The sampled answers to each question, of all seeds."""
    rounds = [marks[each] for each in sampled_rounds(config, temperature)]
    return [list(own) for own in zip(*rounds, strict=True)]


def can_vote(prompts: Sequence[Prompt]) -> bool:
    """Whether responses hold a final answer, and are not judged as a whole."""
    return all(prompt.style != INSTRUCTION_STYLE for prompt in prompts)


def breakdown(prompts: Sequence[Prompt], greedy: Sequence[Mark]) -> Metrics:
    """``eval/greedy/<part>`` and ``eval/n/<part>`` for each level, subject and, in a mixture, task."""
    parts = parts_of(prompts)
    accuracies = {
        f"eval/greedy/{part}": fmean(greedy[place].success for place in places)
        for part, places in parts.items()
    }
    return accuracies | {f"eval/n/{part}": float(len(places)) for part, places in parts.items()}


def parts_of(prompts: Sequence[Prompt]) -> dict[str, list[int]]:
    """The parts of an evaluation as they are named in metrics, and the places of their questions."""
    parts: dict[str, list[int]] = defaultdict(list)
    mixture = len({prompt.task for prompt in prompts}) > 1
    for place, prompt in enumerate(prompts):
        for part in _parts(prompt, mixture):
            parts[part].append(place)
    return dict(sorted(parts.items()))


def instruction_rates(marks: Sequence[Mark]) -> Metrics:
    """The four accuracies of IFEval (Zhou et al. 2023, arXiv 2311.07911), if any answer counts instructions.

    The share of instructions that are met, and of prompts all of whose instructions are; each of the response
    as it stands (strict), and forgiving markdown and a line before or after the answer (loose). Answers
    that were not judged have no counts and are left out.
    """
    counts = [one.counts for one in marks if "instructions" in one.counts]
    asked = sum(count["instructions"] for count in counts)
    if not asked:
        return {}
    metrics = {"eval/n/instruction": float(asked), "eval/n/prompt": float(len(counts))}
    for manner in ("strict", "loose"):
        metrics[f"eval/instruction_{manner}"] = sum(count[manner] for count in counts) / asked
        metrics[f"eval/prompt_{manner}"] = fmean(count[manner] == count["instructions"] for count in counts)
    return metrics


def _sampled(config: RunConfig, prompts: Sequence[Prompt], marks: Marks, temperature: float) -> Metrics:
    answers = answers_at(config, marks, temperature)
    values = sampled_values(ks_of(config.eval), answers, can_vote(prompts))
    return {name: fmean(each) for name, each in values.items()}


def _parts(prompt: Prompt, mixture: bool) -> Iterator[str]:
    """The parts of an evaluation that a prompt belongs to."""
    if prompt.level:
        yield _slug(prompt.level)
    if prompt.subject:
        yield f"subject_{_slug(prompt.subject)}"
    if mixture:
        yield f"task_{_slug(prompt.task)}"


def _slug(name: str) -> str:
    """A name of a dataset in lower case, with one underscore for whatever is no letter or digit."""
    return _NOT_IN_KEYS.sub("_", name.lower()).strip("_") or "other"
