"""What an answer earns in the loss. Shape suffixes: G answers of a group, K reference samples."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from expert_iteration.algorithms import Advantage
from expert_iteration.types import Group


def advantages(group: Group, kind: Advantage, normalize_std: bool) -> dict[int, float]:
    """Advantage of each judged rollout of `group`, by its position in the group.

    Abstentions are no part of the group. `Advantage.BATCH` is centred by the learner, which sees the batch.
    """
    judged = group.judged
    rewards_G = torch.tensor([group.rewards[i] for i in judged])
    if kind is Advantage.GROUP:
        found_G = group_advantages(rewards_G, normalize_std) if judged else rewards_G
    elif kind is Advantage.VALUE:
        assert group.ticket.prompt.value is not None, f"prompt {group.ticket.prompt.id} has no value"
        found_G = rewards_G - group.ticket.prompt.value
    else:
        successes_G = torch.tensor([float(group.verdicts[i].success) for i in judged])
        found_G = SINGLE[kind](rewards_G, successes_G)
    return dict(zip(judged, found_G.tolist(), strict=True))


SINGLE: dict[Advantage, Callable[[Tensor, Tensor], Tensor]] = {
    Advantage.ONE: lambda rewards_G, _: torch.ones_like(rewards_G),
    Advantage.REWARD: lambda rewards_G, _: rewards_G.clamp(min=0),
    Advantage.BATCH: lambda _, successes_G: 2 * successes_G - 1,
}
"""Advantages that depend on the answer alone: (rewards, successes) -> advantages, all [G]."""


def group_advantages(rewards_G: Tensor, normalize_std: bool) -> Tensor:
    """Rewards of one prompt's answers less their mean, and over their standard deviation (ddof 1), [G].

    GRPO (arXiv 2402.03300); without the division Dr. GRPO. CS336 2025, eq. 29-31, with its 1e-6.
    """
    centred_G = rewards_G - rewards_G.mean()
    if not normalize_std or len(rewards_G) < 2:
        return centred_G
    return centred_G / (rewards_G.std(correction=1) + 1e-6)


def optimal_value(rewards_K: Tensor, beta: float) -> Tensor:
    """V* = beta (logsumexp(r / beta) - log K) of K reference samples, a scalar (A*-PO, arXiv 2505.20686).

    It lies between their mean (beta to infinity) and their maximum (beta to 0).
    """
    return beta * ((rewards_K / beta).logsumexp(0) - math.log(len(rewards_K)))
