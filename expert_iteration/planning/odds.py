"""How many answers of a group are right, and how many of them selection keeps: exact expectations.

A prompt is answered right with its own pass rate, and the pass rates of all prompts follow a Beta
distribution, so the right answers of a group are beta-binomial. With a spread of 0 all prompts are alike,
and they are binomial: the most that can be kept at a given mean pass rate, for what selection keeps is
concave in the number of right answers.
"""

from dataclasses import dataclass
from math import comb, exp, lgamma
from random import Random

from expert_iteration.algorithms import Keep, Source, algorithm_of, answers_at_once
from expert_iteration.choices import Duplicates
from expert_iteration.config import RunConfig
from expert_iteration.selection import Candidate, Fate, select

PASS_RATES = (0.1, 0.3, 0.5, 0.8)
"""Shown side by side where none is given."""


@dataclass(frozen=True)
class Odds:
    """What the answers to a prompt are like."""

    pass_rate: float = 0.5
    """Mean share of right answers, in [0, 1]."""
    spread: float = 0.0
    """How much prompts differ: Var(pass rate) = spread x mean x (1 - mean). 1: always or never right."""
    variety: float = 1.0
    """Share of the right answers after the first of a group that are no duplicates."""
    length: float | None = None
    """Mean tokens of an answer; None: nobody measured it."""

    def draw(self, lot: Random) -> float:
        """The pass rate of one prompt."""
        mean, spread = self.pass_rate, self.spread
        if spread == 0 or mean in (0.0, 1.0):
            return mean
        if spread >= 1:
            return float(lot.random() < mean)
        return lot.betavariate(*_beta(mean, spread))


def right_answers(odds: Odds, answers: int) -> list[float]:
    """Probability of 0, 1, ... `answers` right ones in a group."""
    mean, spread = odds.pass_rate, odds.spread
    if mean in (0.0, 1.0):
        return [float(count == answers * mean) for count in range(answers + 1)]
    if spread == 0:
        return _binomial(answers, mean)
    if spread >= 1:
        return [1 - mean, *[0.0] * (answers - 1), mean]
    a, b = _beta(mean, spread)
    return [
        comb(answers, count) * exp(_log_beta(a + count, b + answers - count) - _log_beta(a, b))
        for count in range(answers + 1)
    ]


def _beta(mean: float, spread: float) -> tuple[float, float]:
    total = (1 - spread) / spread
    return mean * total, (1 - mean) * total


def _binomial(trials: int, chance: float) -> list[float]:
    return [
        comb(trials, count) * chance**count * (1 - chance) ** (trials - count) for count in range(trials + 1)
    ]


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


@dataclass(frozen=True)
class GroupOdds:
    """Expectations for one visit of a prompt."""

    kept: float
    """Answers that are trained on."""
    solved: float
    """Chance of at least one right answer."""
    sampled: float
    """Answers sampled: rollouts_per_prompt, fewer where sampling ends early, and those of other prompts that
    are tried in its place."""
    hinted: float
    """Answers sampled with the right one as a hint, which may add to what is kept."""


class Groups:
    """The groups of a run, as the selection that training uses sees them. No answer abstains, and rewards
    are 1 for right answers and 0 for wrong ones."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._algorithm = algorithm_of(config)
        self._kept: dict[tuple[int, int], int] = {}
        self.sampled = self._algorithm.source is Source.POLICY
        """Answers come from the policy; else one comes from the dataset, whatever the odds."""
        self._answers = config.rollouts_per_prompt if self.sampled else 1

    def expect(self, odds: Odds) -> GroupOdds:
        """What a visit of a prompt brings."""
        if not self.sampled:
            return GroupOdds(kept=self._keeps(1, 1), solved=1.0, sampled=0.0, hinted=0.0)
        config, chances = self._config, right_answers(odds, self._answers)
        kept = sum(chance * self._expected(right, odds) for right, chance in enumerate(chances) if chance)
        visits = 1.0
        if self._algorithm.keep is Keep.GROUPS:
            silent = chances[0] + chances[-1]
            visits = sum(silent**tried for tried in range(config.sampling.refill + 1))
        share = config.rationalisation.max_share * config.rationalisation.enabled
        hinted = self._answers * chances[0] * min(1.0, share)
        sampled = sum(chance * self._sampled(right) for right, chance in enumerate(chances))
        return GroupOdds(kept * visits, 1 - chances[0], sampled * visits, hinted)

    def _sampled(self, right: int) -> float:
        """Answers sampled of a group that would hold `right` ones, on average over their order."""
        answers, at_once = self._answers, answers_at_once(self._config)
        enough = self._config.selection.top_k or answers
        if at_once == answers or right < enough:
            return answers
        # the chance that the first `count` answers hold fewer than `enough` right ones
        return sum(
            min(at_once, answers - count)
            * sum(comb(count, few) * comb(answers - count, right - few) for few in range(enough))
            / comb(answers, right)
            for count in range(0, answers, at_once)
        )

    def _expected(self, right: int, odds: Odds) -> float:
        """Answers kept of a group with `right` ones, on average over which of them are duplicates."""
        if right < 2 or odds.variety == 1 or self._config.selection.duplicates is Duplicates.keep:
            return self._keeps(right, right)
        chances = _binomial(right - 1, odds.variety)
        return sum(chance * self._keeps(right, 1 + more) for more, chance in enumerate(chances) if chance)

    def _keeps(self, right: int, different: int) -> int:
        """Answers kept of a group with `right` ones, of which `different` are no duplicates."""
        if (right, different) not in self._kept:
            fates = select(
                [self._candidate(index, right, different) for index in range(self._answers)],
                self._config.selection,
                self._config.seed,
                self._algorithm.keep,
            )
            self._kept[right, different] = sum(fate is Fate.KEPT for fate in fates.values())
        return self._kept[right, different]

    @staticmethod
    def _candidate(index: int, right: int, different: int) -> Candidate:
        """The right answers come first; those from number `different` on repeat the one before it."""
        success = index < right
        same = min(index, different - 1) if success else index
        return Candidate(0, index, reward=float(success), success=success, fingerprint=same)
