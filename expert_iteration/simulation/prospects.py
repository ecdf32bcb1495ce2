"""What a run would take on accelerators that nobody has at hand."""

from dataclasses import dataclass

from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.planning.odds import Odds
from expert_iteration.planning.shapes import Shape, shape_of
from expert_iteration.simulation.hardware import Accelerator, Assumptions
from expert_iteration.simulation.lengths import Lengths
from expert_iteration.simulation.outcome import Outcome, simulate
from expert_iteration.simulation.rates import Rates, datasheet_rates
from expert_iteration.simulation.split import Split, ranked
from expert_iteration.simulation.workload import expected
from expert_iteration.tokenizer import resolve_model

ALIKE = {"synchronous": 1, "asynchronous": 3}
"""Iterations that are simulated where all are alike; asynchronous ones overlap."""


@dataclass(frozen=True)
class Prospects:
    """A model, GPUs of one kind, and what answers are like."""

    shape: Shape
    gpu: Accelerator
    lengths: Lengths
    odds: Odds
    given: Assumptions

    @staticmethod
    def of(
        config: RunConfig, gpu: Accelerator, lengths: Lengths, odds: Odds, given: Assumptions
    ) -> "Prospects":
        """
        Raises:
            ConfigError: nobody knows how large the model is.
        """
        found = shape_of(resolve_model(config).model)
        if found.shape is None:
            raise ConfigError(
                f"model.path ({config.model.path}) has no size to compute with: {found.origin}."
            )
        return Prospects(found.shape, gpu, lengths, odds, given)

    def rates(self, config: RunConfig) -> Rates:
        return datasheet_rates(config, self.shape, self.gpu, self.lengths, self.given)

    def outcome(self, config: RunConfig) -> Outcome:
        """
        Raises:
            ConfigError: collectors and learner could wait for each other for ever.
        """
        workload = expected(config, [self.odds], [(self.lengths, self.lengths)])
        return simulate(config, self.rates(config), workload, _iterations(config))

    def ranked(self, config: RunConfig, gpus: int) -> list[tuple[Split, Outcome]]:
        """Splits of so many GPUs, the fastest first.

        Raises:
            ConfigError: there are too few, or collectors and learner could wait for each other for ever.
        """
        return ranked(config, gpus, self.outcome)


def _iterations(config: RunConfig) -> int:
    """All of them, if some are evaluated or saved and others are not."""
    if config.eval.every != 1 or config.checkpoint.every != 1:
        return config.iterations
    return ALIKE["synchronous" if config.mode.publish_every is None else "asynchronous"]
