"""Draws the prompts that can teach: neither solved already nor out of reach.

Each prompt has a Beta posterior of its present pass rate, whose prior is what prompts of its kind have shown.
A pass rate is drawn from it (Thompson sampling), and with it the signal that `rollouts` answers would bring.
The prompts with the highest one are visited.

A prompt that has nothing more to say for now is retired, and one that was never solved in `park_after`
answers is parked; both are tried again after a while, the parked ones ever more rarely.
"""

import random
from collections.abc import Callable, Sequence

from expert_iteration.algorithms import Keep
from expert_iteration.config import PromptsConfig
from expert_iteration.ledger import Beta, Ledger, Record
from expert_iteration.types import Prompt

SOLVED = 0.9
"""Posterior mean above which a prompt that was answered right throughout is retired."""


class Frontier:
    def __init__(
        self, prompts: Sequence[Prompt], rollouts: int, keep: Keep, seed: int, config: PromptsConfig
    ) -> None:
        self._prompts = {prompt.id: prompt for prompt in prompts}
        self._kinds = {prompt.id: f"{prompt.task}/{prompt.level}" for prompt in prompts}
        self._rollouts = rollouts
        self._keep = keep
        self._seed = seed
        self._config = config

    def draw(self, iteration: int, count: int, ledger: Ledger) -> list[Prompt]:
        """`count` prompts for `iteration` (1 is the first), a function of the seed and of the ledger.

        Prompts that rest come after all others, those seen longest ago first; with fewer than `count`
        prompts, they come again.
        """
        priors = ledger.priors(self._kinds, iteration)
        ranked = sorted(self._prompts, key=lambda prompt_id: self._rank(prompt_id, iteration, ledger, priors))
        chosen = (ranked * -(-count // len(ranked)))[:count]
        random.Random(f"{self._seed}/{iteration}/frontier").shuffle(chosen)
        return [self._prompts[prompt_id] for prompt_id in chosen]

    def _rank(
        self, prompt_id: int, iteration: int, ledger: Ledger, priors: dict[str, Beta]
    ) -> tuple[bool, float]:
        """Lowest first."""
        belief = ledger.posterior(prompt_id, priors[self._kinds[prompt_id]], iteration)
        record = ledger.records.get(prompt_id)
        if record is not None and self.rests(record, belief, iteration):
            return True, record.last_seen
        lot = random.Random(f"{self._seed}/{iteration}/{prompt_id}")
        rate = lot.betavariate(belief.successes, belief.failures)
        return False, -SIGNAL[self._keep](rate, self._rollouts)

    def rests(self, record: Record, belief: Beta, iteration: int) -> bool:
        """Whether a prompt with this history is left out of `iteration`."""
        config, away = self._config, iteration - record.last_seen
        if self._learned(record, belief):
            return away < config.retest_every
        if not record.solved and record.attempts >= config.park_after:
            return away < config.retry_every * 2 ** (record.attempts // config.park_after - 1)
        return False

    def _learned(self, record: Record, belief: Beta) -> bool:
        """Imitation has then trained on a right answer; other methods learn until none is wrong."""
        if self._keep is Keep.SUCCESSFUL:
            return record.last_rate > 0
        return record.last_rate == 1 and belief.mean > SOLVED


def novelty(rate: float, rollouts: int) -> float:
    """Chance that one of the answers is right, times how little that was to be expected of each.

    What imitation learns from an answer that the policy gives anyway is next to nothing.
    """
    return (1 - (1 - rate) ** rollouts) * (1 - rate)


def contrast(rate: float, rollouts: int) -> float:
    """Probability that of several answers, each right with `rate`, some are right and some wrong.

    A single answer is compared with those to other prompts, of which one is as good as a second here.
    """
    several = max(rollouts, 2)
    return 1 - rate**several - (1 - rate) ** several


SIGNAL: dict[Keep, Callable[[float, int], float]] = {
    Keep.SUCCESSFUL: novelty,
    Keep.GROUPS: contrast,
    Keep.ALL: contrast,
}
"""What a visit is worth, by pass rate and number of answers."""
