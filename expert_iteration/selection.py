"""Which answers of a group are trained on: a pure rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from statistics import median_low

from expert_iteration.algorithms import Keep
from expert_iteration.choices import Duplicates, Prefer, Strategy
from expert_iteration.config import SelectionConfig


class Fate(StrEnum):
    """What selection did with an answer: kept, or why not."""

    KEPT = "kept"
    UNSUCCESSFUL = "unsuccessful"
    BELOW_MIN_REWARD = "below_min_reward"
    NOT_ABOVE_MEDIAN = "not_above_median"
    NO_SIGNAL = "no_signal"
    """Its group is all right or all wrong, so that no answer has an advantage."""
    DUPLICATE = "duplicate"
    BEYOND_TOP_K = "beyond_top_k"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What selection may know of an answer."""

    prompt_id: int
    rollout_index: int
    reward: float
    success: bool
    fingerprint: int
    """Equal for answers that count as duplicates."""
    length: int = 0
    """Response tokens."""
    log_prob: float = 0.0
    """Mean log pi_old of the response tokens."""
    runs: frozenset[tuple[int, ...]] = frozenset()
    """Its runs of tokens, which tell how different two answers are."""


def select(
    candidates: Sequence[Candidate], config: SelectionConfig, seed: int, keep: Keep = Keep.SUCCESSFUL
) -> dict[int, Fate]:
    """The fate of each answer of one group, by rollout index.

    `keep` says which answers pass the gate; if `config.min_reward` is a number, those do whose reward
    reaches that number. Those that pass are ranked: by reward for `top_k`, at random for `random`, and
    among equals by `config.prefer`; ties are broken by a hash of (seed, prompt id, rollout index), so the
    order in which the answers arrive never matters. The first `config.top_k` distinct ones are kept.
    """
    assert len({candidate.rollout_index for candidate in candidates}) == len(candidates), (
        "a rollout came twice"
    )
    gate = _gate(candidates, config, keep)
    fates = {candidate.rollout_index: gate(candidate) for candidate in candidates}
    if config.strategy is Strategy.compat_torchrl:
        fates |= _not_above_median(candidates)
    passing = [candidate for candidate in candidates if fates[candidate.rollout_index] is Fate.KEPT]
    distinct: dict[int, Candidate] = {}
    for candidate in sorted(passing, key=lambda candidate: _rank(candidate, config, seed)):
        same = candidate.fingerprint if config.duplicates is not Duplicates.keep else candidate.rollout_index
        if distinct.setdefault(same, candidate) is not candidate:
            fates[candidate.rollout_index] = Fate.DUPLICATE
    ordered = list(distinct.values())
    if config.prefer is Prefer.most_diverse:
        ordered = _spread(ordered, config)
    if config.top_k is not None:
        fates |= {candidate.rollout_index: Fate.BEYOND_TOP_K for candidate in ordered[config.top_k :]}
    return fates


def _gate(
    candidates: Sequence[Candidate], config: SelectionConfig, keep: Keep
) -> Callable[[Candidate], Fate]:
    """Fate of an answer before it is compared with the others: kept, or why not."""
    if (floor := config.min_reward) is not None:
        return lambda candidate: Fate.KEPT if candidate.reward >= floor else Fate.BELOW_MIN_REWARD
    if keep is Keep.SUCCESSFUL:
        return lambda candidate: Fate.KEPT if candidate.success else Fate.UNSUCCESSFUL
    signal = keep is Keep.ALL or len({candidate.success for candidate in candidates}) > 1
    return lambda _: Fate.KEPT if signal else Fate.NO_SIGNAL


def _not_above_median(candidates: Sequence[Candidate]) -> dict[int, Fate]:
    """What TorchRL's selector drops: with 0/1 rewards, all of a group that is more than half right."""
    median = median_low([candidate.reward for candidate in candidates] or [0.0])
    return {one.rollout_index: Fate.NOT_ABOVE_MEDIAN for one in candidates if one.reward <= median}


def _rank(candidate: Candidate, config: SelectionConfig, seed: int) -> tuple[float, float, int, int]:
    """Lowest first; the rollout index only decides when two hashes collide."""
    key = f"{seed}/{candidate.prompt_id}/{candidate.rollout_index}".encode()
    lot = int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
    preference = PREFERENCES[config.prefer](candidate)
    return -_reward(candidate, config), preference, lot, candidate.rollout_index


PREFERENCES: dict[Prefer, Callable[[Candidate], float]] = {
    Prefer.first: lambda _: 0.0,
    Prefer.shortest: lambda candidate: candidate.length,
    Prefer.most_likely: lambda candidate: -candidate.log_prob,
    Prefer.most_diverse: lambda _: 0.0,
}
"""Lowest first, among answers with equal rewards."""


def _reward(candidate: Candidate, config: SelectionConfig) -> float:
    return 0.0 if config.strategy is Strategy.random else candidate.reward


def _spread(ranked: Sequence[Candidate], config: SelectionConfig) -> list[Candidate]:
    """`ranked`, with each answer followed by the one farthest from all before it, among equal rewards."""
    left, chosen = list(ranked), list[Candidate]()
    while left:
        best = _reward(left[0], config)
        equals = [candidate for candidate in left if _reward(candidate, config) == best]
        chosen.append(
            max(equals, key=lambda one: min((distance(one, other) for other in chosen), default=1.0))
        )
        left.remove(chosen[-1])
    return chosen


def distance(one: Candidate, other: Candidate) -> float:
    """Jaccard distance of the runs of two answers, in [0, 1]."""
    either = len(one.runs | other.runs)
    return 1 - len(one.runs & other.runs) / either if either else 0.0
