"""What becomes of groups that teach nothing: another prompt is tried, or the same one with a hint.

* Methods that compare the answers of a group learn nothing when all are right or all are wrong: up to
  `sampling.refill` other prompts take the place of such a one (dynamic sampling, DAPO, arXiv 2503.14476).
* Rationalisation (STaR, arXiv 2203.14465) asks a prompt without a correct answer again, with the right
  answer as a hint, and keeps what then grades correct, without the hint.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from expert_iteration.algorithms import Keep, algorithm_of
from expert_iteration.config import RunConfig
from expert_iteration.sampling import Ask
from expert_iteration.types import Group, Outcome, Rollout, Verdict

LEAK = Verdict(Outcome.WRONG, "speaks of the hint")


@dataclass(frozen=True, slots=True)
class Sorted:
    """Judged groups by what happens next."""

    finished: list[Group]
    wasted: list[Group]
    """Another prompt takes their place."""
    again: list[Ask]


class SecondChances:
    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._compares = algorithm_of(config).keep is Keep.GROUPS

    def sort(self, groups: Sequence[Group]) -> Sorted:
        sorted_ = Sorted([], [], [])
        for group in groups:
            ticket = group.ticket
            if self._compares and ticket.spares and not has_signal(group):
                sorted_.wasted.append(group)
                other = replace(ticket, prompt=ticket.spares[0], spares=ticket.spares[1:])
                sorted_.again.append(Ask(other))
            elif self._needs_hint(group):
                sorted_.again.append(Ask(ticket, unsolved=group))
            else:
                sorted_.finished.append(group)
        return sorted_

    def _needs_hint(self, group: Group) -> bool:
        config = self._config
        if not config.rationalisation.enabled or any(verdict.success for verdict in group.verdicts):
            return False
        if any(rollout.rationalised for rollout in group.rollouts):
            return False
        prompts = config.prompts_per_iteration
        allowed = hinted_positions(
            config.seed, group.ticket.iteration, prompts, int(config.rationalisation.max_share * prompts)
        )
        return group.ticket.group_id % prompts in allowed


def has_signal(group: Group) -> bool:
    """Whether some judged answers are right and some are wrong."""
    return len({group.verdicts[i].success for i in group.judged}) > 1


@lru_cache(maxsize=4)
def hinted_positions(seed: int, iteration: int, prompts: int, count: int) -> frozenset[int]:
    """The `count` places among the `prompts` of an iteration that may be rationalised: a lot, drawn once."""
    return frozenset(random.Random(f"{seed}/{iteration}/hints").sample(range(prompts), count))


def rationalised(
    unsolved: Group, rollouts: Sequence[Rollout], verdicts: Sequence[Verdict], forbidden: Sequence[str]
) -> tuple[tuple[Rollout, ...], tuple[Verdict, ...]]:
    """The answers of `unsolved`, followed by those found with the hint.

    A hinted answer that holds one of the `forbidden` texts, in any case, speaks of the hint and is wrong.
    """
    first = len(unsolved.rollouts)
    hinted = tuple(replace(rollout, index=first + i, rationalised=True) for i, rollout in enumerate(rollouts))
    marks = [mark.casefold() for mark in forbidden]
    judged = tuple(
        replace(LEAK, format_reward=verdict.format_reward)
        if any(mark in rollout.text.casefold() for mark in marks)
        else verdict
        for rollout, verdict in zip(rollouts, verdicts, strict=True)
    )
    return unsolved.rollouts + hinted, unsolved.verdicts + judged
