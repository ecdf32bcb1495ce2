"""Is it still exploring? Rules that notice a collapse or a plateau, and what is done about it."""

from dataclasses import dataclass

from expert_iteration.config import HealthConfig
from expert_iteration.types import Metrics


@dataclass(slots=True)
class Health:
    """What is remembered of earlier iterations. Part of a checkpoint."""

    first_entropy: float | None = None
    """Entropy of a response token in the first iteration, in nats."""
    best: float | None = None
    """Highest held-out greedy accuracy so far."""
    evaluations_since: int = 0
    """Evaluations since it was reached."""
    temperature: float | None = None
    """Sampling temperature, once it was raised; None: sampling.temperature."""

    def collapse(self, rates: Metrics, config: HealthConfig) -> str | None:
        """What has collapsed in an iteration with these `rates` (books.py), if anything has."""
        entropy, distinct = rates["rollout/entropy"], rates["rollout/distinct"]
        if self.first_entropy is None:
            self.first_entropy = entropy
        floor = config.entropy_floor * self.first_entropy
        if entropy < floor:
            return (
                f"the entropy of a response token fell to {entropy:.3g} nats, below {config.entropy_floor:g} "
                f"(health.entropy_floor) of the {self.first_entropy:.3g} of the first iteration"
            )
        if distinct < config.distinct_floor:
            return (
                f"only {distinct:.0%} of the answers to a prompt differ, below {config.distinct_floor:.0%} "
                "(health.distinct_floor)"
            )
        return None

    def plateau(self, accuracy: float, config: HealthConfig) -> bool:
        """Whether `config.patience` evaluations in a row have not raised the best accuracy."""
        if self.best is None or accuracy > self.best + config.min_improvement:
            self.best, self.evaluations_since = accuracy, 0
            return False
        self.evaluations_since += 1
        return config.patience is not None and self.evaluations_since >= config.patience

    def raise_temperature(self, present: float, config: HealthConfig) -> float:
        """The next temperature, never above `config.max_temperature` unless it is there already."""
        raised = (self.temperature or present) * config.temperature_factor
        self.temperature = max(min(raised, config.max_temperature), self.temperature or present)
        return self.temperature
