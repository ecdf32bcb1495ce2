"""How good is the policy? Judged answers to held-out questions, never to training prompts."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from statistics import fmean
from typing import TypeAlias

from expert_iteration.types import Finish, Metrics, Prompt, Rollout, Verdict

Judged: TypeAlias = list[tuple[Rollout, Verdict]]
Answer: TypeAlias = Callable[[Sequence[Prompt], float, int], Awaitable[Judged]]
"""(prompts, temperature, seed) -> one judged answer to each prompt, in order."""


async def evaluate(answer: Answer, prompts: Sequence[Prompt], temperature: float, seed: int) -> Metrics:
    """Greedy accuracy and sampled pass@1 on `prompts`, all rates as shares in [0, 1].

    The format rate and everything by level belong to the greedy answers. Answers on which the
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
    by_level: dict[str, Judged] = defaultdict(list)
    for prompt, judged in zip(prompts, greedy, strict=True):
        if prompt.level:
            by_level[prompt.level].append(judged)
    for level, judged_at in sorted(by_level.items()):
        metrics[f"eval/greedy/{level}"] = success_rate(judged_at)
        metrics[f"eval/n/{level}"] = float(len(judged_at))
    return metrics


def success_rate(judged: Judged) -> float:
    return fmean(verdict.success for _, verdict in judged)
