"""What a run is doing at this moment: the reporter writes it, the console reads it."""

from dataclasses import dataclass, field

from expert_iteration.types import Metrics


@dataclass
class PhaseStatus:
    """A phase that is open."""

    name: str
    iteration: int
    total: int | None
    """Units of work to do; null when nobody knows."""
    started: float
    done: int = 0
    live: Metrics = field(default_factory=dict)
    """The newest numbers that came with the progress of this phase."""


@dataclass
class Status:
    """Times are readings of the reporter's clock, in seconds."""

    iterations: int
    started: float
    iteration: int = 0
    """The newest iteration that anything was done for."""
    step: int = 0
    latest: Metrics = field(default_factory=dict)
    phases: dict[str, PhaseStatus] = field(default_factory=dict)
    """Open phases; more than one while collecting overlaps learning."""
    ends: list[tuple[int, float]] = field(default_factory=list)
    """(iteration, time) where iterations ended in this session; the first entry is where it began."""
    rows: dict[int, Metrics] = field(default_factory=dict)
    """Metrics of the iterations that have not ended."""

    def end(self, iteration: int, now: float) -> None:
        """Iteration `iteration` is over; the evaluation before training does not count for the pace."""
        if self.ends and self.ends[-1][0] == iteration:
            self.ends.pop()
        self.ends.append((iteration, now))

    def time_left(self, now: float) -> float | None:
        """Seconds until the last iteration ends, at the pace of this session; None before one has ended."""
        if len(self.ends) < 2:
            return None
        (first, begin), (last, end) = self.ends[0], self.ends[-1]
        pace = (end - begin) / (last - first)
        return max(0.0, pace * (self.iterations - last) - (now - end))
