"""What becomes of groups that do not teach enough: more answers, another prompt, or the same one with a hint.

* Where answers are sampled a few at a time, a prompt that has too few right ones gets more.
* Methods that compare the answers of a group learn nothing when all are right or all are wrong: up to
  `sampling.refill` other prompts take the place of such a one (dynamic sampling, DAPO, arXiv 2503.14476).
* Rationalisation (STaR, arXiv 2203.14465) asks a prompt without a correct answer again, with the right
  answer as a hint, and keeps what then grades correct, without the hint.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

from expert_iteration.algorithms import Keep, algorithm_of
from expert_iteration.choices import Duplicates
from expert_iteration.config import RunConfig
from expert_iteration.sampling import Ask
from expert_iteration.traces import fingerprint
from expert_iteration.types import Group, Outcome, Rollout, Verdict

Answers: TypeAlias = tuple[tuple[Rollout, ...], tuple[Verdict, ...]]
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
            elif self._lacks_answers(group):
                sorted_.again.append(Ask(ticket, group))
            elif self._needs_hint(group):
                sorted_.again.append(Ask(ticket, group, hinted=True))
            else:
                sorted_.finished.append(group)
        return sorted_

    def _lacks_answers(self, group: Group) -> bool:
        """Whether more may be sampled, and more right ones be kept."""
        if len(group.rollouts) >= self._config.rollouts_per_prompt:
            return False
        assert self._config.selection.top_k is not None
        return len(self._right(group)) < self._config.selection.top_k

    def _right(self, group: Group) -> set[int]:
        """The right answers of a group; of those that count as the same, one."""
        same = self._config.selection.duplicates
        found = {i for i, verdict in enumerate(group.verdicts) if verdict.success}
        if same is Duplicates.keep:
            return found
        return {fingerprint(group.rollouts[i].text, same) for i in found}

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
    rollouts: Sequence[Rollout], verdicts: Sequence[Verdict], forbidden: Sequence[str]
) -> Answers:
    """Answers found with the hint: those that hold one of the `forbidden` texts, in any case, are wrong."""
    marks = [mark.casefold() for mark in forbidden]
    judged = tuple(
        replace(LEAK, format_reward=verdict.format_reward)
        if any(mark in rollout.text.casefold() for mark in marks)
        else verdict
        for rollout, verdict in zip(rollouts, verdicts, strict=True)
    )
    return tuple(replace(rollout, rationalised=True) for rollout in rollouts), judged


def joined(before: Group, rollouts: Sequence[Rollout], verdicts: Sequence[Verdict]) -> Answers:
    """The answers of a group, followed by those that came later."""
    first = len(before.rollouts)
    later = (replace(rollout, index=first + i) for i, rollout in enumerate(rollouts))
    return (*before.rollouts, *later), (*before.verdicts, *verdicts)
