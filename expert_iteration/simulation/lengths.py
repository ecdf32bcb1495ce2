"""How long answers are."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.planning.disk import LENGTH
from expert_iteration.reports.runs import RunFiles

QUANTILES = 512
"""Lengths that stand for a distribution, each equally likely."""
P99 = NormalDist().inv_cdf(0.99)


@dataclass(frozen=True)
class Lengths:
    """A distribution of tokens of an answer."""

    tokens: tuple[int, ...]
    """Equally likely, in ascending order."""

    @property
    def mean(self) -> float:
        return fmean(self.tokens)

    @property
    def longest(self) -> int:
        return self.tokens[-1]

    def draw(self, count: int, lot: random.Random) -> list[int]:
        return lot.choices(self.tokens, k=count)


def measured(tokens: Sequence[int]) -> Lengths:
    """As they were in a run."""
    return Lengths(tuple(sorted(tokens)))


def lognormal(mean: float, p99: float, most: int) -> Lengths:
    """With a mean and a 99th percentile before what is longer than `most` is cut off there.

    Raises:
        ConfigError: no lognormal distribution has them.
    """
    spread = P99**2 - 2 * math.log(p99 / mean) if 0 < mean < p99 else -1.0
    if spread < 0:
        steepest = math.exp(P99**2 / 2)
        raise ConfigError(
            f"--p99 ({p99:g}) must be above --mean ({mean:g}) and at most {steepest:.1f} times as large."
        )
    sigma = P99 - math.sqrt(spread)
    middle = math.log(mean) - sigma**2 / 2
    normal = NormalDist(middle, sigma)
    drawn = (math.exp(normal.inv_cdf((i + 0.5) / QUANTILES)) for i in range(QUANTILES))
    return Lengths(tuple(min(most, max(1, round(length))) for length in drawn))


def of_run(run: RunFiles) -> Lengths:
    """All answers of a run.

    Raises:
        ConfigError: it has none.
    """
    tokens = [row["tokens"] for row in run.rollouts()]
    if not tokens:
        raise ConfigError(f"{run.folder} has no rollouts; name the folder of another run.")
    return measured(tokens)


def supposed(config: RunConfig) -> Lengths:
    """Where nobody measured them: one answer in a hundred is cut off at sampling.max_tokens."""
    most = config.sampling.max_tokens
    return lognormal(most * LENGTH, most, most)
