"""Which optimizer steps are left out because their numbers went wrong, and when that ends a run."""

import logging
import math
from dataclasses import dataclass, field
from enum import Enum
from statistics import median

from expert_iteration.config import OptimizerConfig

WINDOW = 64
"""Gradient norms that are remembered."""
FEWEST = 16
"""Norms that a median needs before a norm can exceed it too far."""
SHOWN = 5

logger = logging.getLogger(__name__)


class Fault(Enum):
    """Why a step is left out, as the log says it."""

    NOT_FINITE = "loss or gradient is not finite"
    SPIKE = "the gradient norm is far above those before (optimizer.spike_factor)"


class Diverged(RuntimeError):
    """Too many steps in a row were left out. Its only argument is the message, so that it can be pickled."""


@dataclass(slots=True)
class Guard:
    """What is remembered of earlier steps, which decides on the next one. Part of a checkpoint.

    It reads numbers of the whole step only, so all ranks decide alike.
    """

    norms: list[float] = field(default_factory=list)
    """Gradient norms of the last steps that were taken, oldest first; at most WINDOW, and none that is 0."""
    left_out: int = 0
    """Steps that were left out since the last one that was taken."""

    def judge(self, step: int, loss: float, norm: float, options: OptimizerConfig) -> Fault | None:
        """Decide on optimizer step number `step`, and remember it; None: it may be taken."""
        fault = self._fault(loss, norm, options)
        if fault is not None:
            self.left_out += 1
            logger.warning("step %d is left out: %s (loss %.4g, norm %.3g).", step, fault.value, loss, norm)
            return fault
        self.left_out = 0
        if norm > 0:  # no gradient tells nothing of the size of gradients
            self.norms = [*self.norms, norm][-WINDOW:]
        return None

    def give_up(self, loss: float, norm: float, options: OptimizerConfig) -> None:
        """End the run if nothing but faults was seen for too long; `loss` and `norm` are the last ones.

        Raises:
            Diverged: `options.max_skipped` steps in a row were left out.
        """
        if self.left_out < options.max_skipped:
            return
        before = ", ".join(f"{earlier:.3g}" for earlier in self.norms[-SHOWN:]) or "none"
        factor = options.spike_factor
        spikes = "" if factor is None else f", or raise optimizer.spike_factor ({factor:g})"
        raise Diverged(
            f"{self.left_out} optimizer steps in a row were left out (optimizer.max_skipped): the last one "
            f"has loss {loss:.4g} and gradient norm {norm:.3g}; gradient norms of the last steps that were "
            f"taken: {before}. Lower optimizer.learning_rate ({options.learning_rate:g}), lengthen "
            f"optimizer.warmup_steps ({options.warmup_steps}){spikes}."
        )

    def restart(self) -> None:
        """Forget the norms, which belong to weights that are gone; what went wrong in a row still counts."""
        self.norms = []

    def _fault(self, loss: float, norm: float, options: OptimizerConfig) -> Fault | None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return Fault.NOT_FINITE
        if options.spike_factor is None or len(self.norms) < FEWEST:
            return None
        return Fault.SPIKE if norm > options.spike_factor * median(self.norms) else None
