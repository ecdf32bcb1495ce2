"""What there is to do: how long the answers are, and how many of them are kept."""

from collections.abc import Sequence
from dataclasses import dataclass

from expert_iteration.config import RunConfig
from expert_iteration.planning.odds import Groups, Odds
from expert_iteration.simulation.lengths import Lengths


@dataclass(frozen=True)
class Answers:
    """What the answers of an iteration are like."""

    lengths: Lengths
    kept_lengths: Lengths
    """Of those that are trained on."""
    odds: Odds
    kept: float
    """Of a prompt, on average."""


@dataclass(frozen=True)
class Workload:
    """Answers by iteration; those of the last one go on for ever."""

    iterations: tuple[Answers, ...]

    def of(self, iteration: int) -> Answers:
        """`iteration` is 0 for the first."""
        return self.iterations[min(iteration, len(self.iterations) - 1)]


def expected(config: RunConfig, odds: Sequence[Odds], lengths: Sequence[tuple[Lengths, Lengths]]) -> Workload:
    """The workload of a run whose answers are like `odds` in each iteration.

    Args:
        lengths: of all answers, and of those that are kept, in each of these iterations.
    """
    groups = Groups(config)
    return Workload(
        tuple(
            Answers(every, kept, one, groups.expect(one).kept)
            for one, (every, kept) in zip(odds, lengths, strict=True)
        )
    )
