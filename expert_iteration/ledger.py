"""What is known of each prompt: how often it was tried and solved, and when."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from expert_iteration.types import Group, Metrics

DISCOUNT = 0.5
"""What a visit counts for in the posterior with each iteration since: the policy has changed."""


@dataclass(slots=True)
class Record:
    """The history of one prompt."""

    visits: int = 0
    attempts: int = 0
    """Answers that were judged, over all visits; hinted ones are not counted."""
    successes: int = 0
    abstentions: int = 0
    kept: int = 0
    """Traces of it that entered the buffer."""
    rationalised: bool = False
    """Whether one of them was found with the right answer as a hint."""
    first_solved: int | None = None
    """Iteration."""
    last_solved: int | None = None
    last_seen: int = 0
    last_rate: float = 0.0
    """Share of correct answers at the last visit."""
    recent_successes: float = 0.0
    """Discounted counts, as of the last visit, for the posterior of the present pass rate."""
    recent_failures: float = 0.0

    @property
    def solved(self) -> bool:
        return self.successes > 0

    @property
    def forgotten(self) -> bool:
        """Solved once, and not at the last visit."""
        return self.solved and self.last_rate == 0

    def recent(self, iteration: int) -> tuple[float, float]:
        """Discounted successes and failures, as of `iteration`."""
        weight = DISCOUNT ** max(0, iteration - self.last_seen)
        return weight * self.recent_successes, weight * self.recent_failures


@dataclass(frozen=True, slots=True)
class Beta:
    """A distribution over pass rates."""

    successes: float = 1.0
    failures: float = 1.0

    @property
    def mean(self) -> float:
        return self.successes / (self.successes + self.failures)


@dataclass
class Ledger:
    """Records by prompt id; prompts that were never visited have none."""

    records: dict[int, Record] = field(default_factory=dict)

    def add(self, group: Group, kept: Iterable[int]) -> None:
        """Book one visit; `kept` are the positions of the rollouts that entered the buffer."""
        prompt, iteration = group.ticket.prompt.id, group.ticket.iteration
        record = self.records.setdefault(prompt, Record())
        judged = [i for i in group.judged if not group.rollouts[i].rationalised]
        successes = sum(group.verdicts[i].success for i in judged)
        kept = list(kept)
        record.visits += 1
        record.attempts += len(judged)
        record.successes += successes
        record.abstentions += len(group.rollouts) - len(group.judged)
        record.kept += len(kept)
        record.rationalised |= any(group.rollouts[i].rationalised for i in kept)
        before = record.recent(iteration)
        record.recent_successes = before[0] + successes
        record.recent_failures = before[1] + len(judged) - successes
        record.last_seen = iteration
        if not judged:
            return
        record.last_rate = successes / len(judged)
        if successes:
            record.first_solved = record.first_solved or iteration
            record.last_solved = iteration

    def posterior(self, prompt_id: int, prior: Beta, iteration: int) -> Beta:
        """Of the prompt's pass rate in `iteration`."""
        record = self.records.get(prompt_id)
        if record is None:
            return prior
        successes, failures = record.recent(iteration)
        return Beta(prior.successes + successes, prior.failures + failures)

    def priors(self, kinds: Mapping[int, str], iteration: int, strength: float = 2.0) -> dict[str, Beta]:
        """For prompts of each kind, what the visited ones of that kind suggest in `iteration`.

        Args:
            kinds: kind of every prompt, such as its level, by prompt id.
            iteration: older visits count for less.
            strength: answers that the prior is worth. A kind without visits has the uniform prior.
        """
        successes = dict.fromkeys(kinds.values(), 1.0)
        failures = dict.fromkeys(kinds.values(), 1.0)
        for prompt_id, record in self.records.items():
            right, wrong = record.recent(iteration)
            successes[kinds[prompt_id]] += right
            failures[kinds[prompt_id]] += wrong
        rates = {kind: successes[kind] / (successes[kind] + failures[kind]) for kind in successes}
        return {kind: Beta(strength * rate, strength * (1 - rate)) for kind, rate in rates.items()}

    def newly_solved(self, iteration: int) -> list[int]:
        """Prompts that were solved for the first time in `iteration`."""
        return [prompt for prompt, record in self.records.items() if record.first_solved == iteration]

    def newly_forgotten(self, iteration: int) -> list[int]:
        """Prompts solved before that were not solved when visited in `iteration`."""
        return [
            prompt
            for prompt, record in self.records.items()
            if record.forgotten and record.last_seen == iteration
        ]

    def state(self) -> list[dict[str, Any]]:
        """Plain values for JSON, one row per prompt."""
        return [{"prompt_id": prompt, **asdict(record)} for prompt, record in sorted(self.records.items())]

    @staticmethod
    def of(rows: Sequence[Mapping[str, Any]]) -> "Ledger":
        """The ledger whose `state` was `rows`."""
        named = [dict(row) for row in rows]
        return Ledger({row.pop("prompt_id"): Record(**row) for row in named})


def summary(ledger: Ledger, iteration: int) -> Metrics:
    """What the ledger says of `iteration`, and of all prompts visited so far."""
    records = ledger.records.values()
    return {
        "ledger/visited": float(len(records)),
        "ledger/solved": float(sum(record.solved for record in records)),
        "ledger/newly_solved": float(len(ledger.newly_solved(iteration))),
        "ledger/forgotten": float(len(ledger.newly_forgotten(iteration))),
    }
