"""Answers to a prompt on paper, sampled a few at a time until enough are right."""

import random
from collections.abc import Sequence

from expert_iteration.algorithms import answers_at_once
from expert_iteration.config import RunConfig
from expert_iteration.simulation.workload import Answers


class Turns:
    """One prompt, whose pass rate is drawn from those of all. Right answers all differ."""

    def __init__(self, config: RunConfig, answers: Answers, lot: random.Random) -> None:
        self._answers = answers
        self._lot = lot
        self._left = config.rollouts_per_prompt
        self._at_once = answers_at_once(config)
        self._lacking = config.selection.top_k or config.rollouts_per_prompt
        self._sampled = 0
        """Answers of the last turn."""
        if self._at_once < self._left:
            self._pass_rate = answers.odds.draw(lot)

    def next(self) -> Sequence[int]:
        """Lengths of the answers to sample next; none if those before are enough."""
        if self._sampled and self._left:
            self._lacking -= sum(self._lot.random() < self._pass_rate for _ in range(self._sampled))
        self._sampled = min(self._at_once, self._left) if self._lacking > 0 else 0
        self._left -= self._sampled
        return self._answers.lengths.draw(self._sampled, self._lot)
