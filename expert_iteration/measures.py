"""Estimates from n answers to a question: pass@k and maj@k, and how sure their means over questions are."""

from collections import Counter
from collections.abc import Hashable, Sequence
from fractions import Fraction
from functools import lru_cache
from math import comb
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Interval: TypeAlias = tuple[float, float]
Blocs: TypeAlias = tuple[tuple[int, bool], ...]
"""(votes, whether it is right) of each answer that somebody gave."""

RESAMPLES = 2_000
CHUNK = 250
"""Resamples whose means are taken at once, which bounds the memory: 10 MB for 5,000 questions."""
SEED = 0


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that one of k answers, drawn from n without putting back, is among the correct ones.

    The unbiased estimate of Chen et al. 2021 (arXiv 2107.03374), as a product that cannot overflow.
    """
    assert 0 <= correct <= n and 1 <= k <= n, f"pass@{k} of {correct} in {n}"
    if n - correct < k:
        return 1.0
    missed = 1.0
    for i in range(n - correct + 1, n + 1):
        missed *= 1 - k / i
    return 1 - missed


def majority_at_k(votes: Sequence[Hashable | None], right: Sequence[bool], k: int) -> float:
    """Chance that the commonest answer among k, drawn from all without putting back, is right.

    Exact, over all subsets of size k: as unbiased as pass@k, and the plain majority vote for k = n. Of
    several answers that are equally common one is drawn.

    Args:
        votes: the final answer of each response, None for a response without one, which casts no vote.
        right: whether it was judged correct; an answer is right if at least half of the responses that gave
            it were.
    """
    counts = Counter(vote for vote in votes if vote is not None)
    correct = Counter(vote for vote, is_right in zip(votes, right, strict=True) if is_right)
    blocs = tuple(sorted((count, 2 * correct[vote] >= count) for vote, count in counts.items()))
    return _majority(blocs, sum(vote is None for vote in votes), k)


@lru_cache(maxsize=50_000)
def _majority(blocs: Blocs, silent: int, k: int) -> float:
    """`majority_at_k`, which depends on the number of votes alone."""
    total = sum(votes for votes, _ in blocs) + silent
    ways = Fraction(0)
    for index, (votes, is_right) in enumerate(blocs):
        if is_right:
            others = [other for place, (other, _) in enumerate(blocs) if place != index]
            ways += sum(
                comb(votes, mine) * _ways_to_lead(others, silent, k - mine, mine)
                for mine in range(1, min(votes, k) + 1)
            )
    return float(ways / comb(total, k))


def _ways_to_lead(others: Sequence[int], silent: int, drawn: int, lead: int) -> Fraction:
    """Subsets of `drawn` responses of the others in which none has more than `lead` votes.

    One in which t of them have as many counts 1 / (t + 1).
    """
    # those that cannot reach the lead may be drawn as they come
    free = silent + sum(votes for votes in others if votes < lead)
    ways = {(votes, 0): comb(free, votes) for votes in range(min(free, drawn) + 1)}
    for votes in (votes for votes in others if votes >= lead):
        further: Counter[tuple[int, int]] = Counter()
        for (used, ties), count in ways.items():
            for more in range(min(lead, drawn - used) + 1):
                further[used + more, ties + (more == lead)] += count * comb(votes, more)
        ways = dict(further)
    shares = (Fraction(count, ties + 1) for (used, ties), count in ways.items() if used == drawn)
    return sum(shares, Fraction(0))


def bootstrap(values: Sequence[float]) -> Interval:
    """95% percentile interval of a mean over questions, which are drawn anew (Efron 1979).

    The same values have the same interval. Where all are equal it is a point.
    """
    assert len(values), "no value"
    own = np.asarray(values, dtype=np.float64)
    # summed row by row: the threads of a matrix product would decide the last bits
    parts = [(draws * own).sum(axis=1) for draws in np.split(_draws(len(own)), RESAMPLES // CHUNK)]
    low, high = np.percentile(np.concatenate(parts) / len(own), (2.5, 97.5))
    return float(low), float(high)


@lru_cache(maxsize=2)
def _draws(n: int) -> NDArray[np.uint8]:
    """[RESAMPLES, n]: how often each of n questions is drawn, with putting back."""
    random = np.random.default_rng(SEED)
    rows = [np.bincount(random.integers(0, n, n), minlength=n) for _ in range(RESAMPLES)]
    return np.stack(rows).astype(np.uint8)
