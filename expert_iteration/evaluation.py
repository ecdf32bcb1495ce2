"""How good is the policy? Judged answers to held-out questions, never to training prompts."""

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from statistics import fmean
from typing import TypeAlias

from expert_iteration.types import Finish, Metrics, Prompt, Rollout, Verdict

Judged: TypeAlias = list[tuple[Rollout, Verdict]]
Answer: TypeAlias = Callable[[Sequence[Prompt], float, int], Awaitable[Judged]]
"""(prompts, temperature, seed) -> one judged answer to each prompt, in order."""

_NOT_IN_KEYS = re.compile(r"\W+")


async def evaluate(answer: Answer, prompts: Sequence[Prompt], temperature: float, seed: int) -> Metrics:
    """Greedy accuracy and sampled pass@1 on `prompts`, all rates as shares in [0, 1].

    The format rate and whatever is broken down belong to the greedy answers. Answers on which the
    grader abstained count as not solved, and their share is reported.
    """
    greedy = await answer(prompts, 0.0, seed)
    sampled = await answer(prompts, temperature, seed)
    metrics = {
        "eval/n": float(len(prompts)),
        "eval/greedy": success_rate(greedy),
        "eval/pass@1": success_rate(sampled),
        "eval/format": fmean(verdict.format_reward for _, verdict in greedy),
        "eval/abstained": fmean(verdict.abstains for _, verdict in greedy + sampled),
        "eval/truncated": fmean(rollout.finish is Finish.LENGTH for rollout, _ in greedy),
        "eval/length": fmean(len(rollout.token_ids) for rollout, _ in greedy),
    }
    return metrics | breakdown(prompts, greedy) | instruction_rates([verdict for _, verdict in greedy])


def breakdown(prompts: Sequence[Prompt], greedy: Judged) -> Metrics:
    """``eval/greedy/<part>`` and ``eval/n/<part>`` for each level, subject and, in a mixture, task."""
    parts: dict[str, Judged] = defaultdict(list)
    mixture = len({prompt.task for prompt in prompts}) > 1
    for prompt, judged in zip(prompts, greedy, strict=True):
        for part in _parts(prompt, mixture):
            parts[part].append(judged)
    accuracies = {f"eval/greedy/{part}": success_rate(judged) for part, judged in sorted(parts.items())}
    return accuracies | {f"eval/n/{part}": float(len(judged)) for part, judged in sorted(parts.items())}


def instruction_rates(verdicts: Sequence[Verdict]) -> Metrics:
    """The four accuracies of IFEval (Zhou et al. 2023, arXiv 2311.07911), if any verdict counts instructions.

    The share of instructions that are met, and of prompts all of whose instructions are; each of the response
    as it stands (strict), and forgiving markdown and a line before or after the answer (loose). Answers
    that were not judged have no counts and are left out.
    """
    counts = [verdict.counts for verdict in verdicts if "instructions" in verdict.counts]
    asked = sum(count["instructions"] for count in counts)
    if not asked:
        return {}
    metrics = {"eval/n/instruction": float(asked), "eval/n/prompt": float(len(counts))}
    for manner in ("strict", "loose"):
        metrics[f"eval/instruction_{manner}"] = sum(count[manner] for count in counts) / asked
        metrics[f"eval/prompt_{manner}"] = fmean(count[manner] == count["instructions"] for count in counts)
    return metrics


def success_rate(judged: Judged) -> float:
    return fmean(verdict.success for _, verdict in judged)


def _parts(prompt: Prompt, mixture: bool) -> Iterator[str]:
    """The parts of an evaluation that a prompt belongs to, as they are named in metrics."""
    if prompt.level:
        yield _slug(prompt.level)
    if prompt.subject:
        yield f"subject_{_slug(prompt.subject)}"
    if mixture:
        yield f"task_{_slug(prompt.task)}"


def _slug(name: str) -> str:
    """A name of a dataset in lower case, with one underscore for whatever is no letter or digit."""
    return _NOT_IN_KEYS.sub("_", name.lower()).strip("_") or "other"
