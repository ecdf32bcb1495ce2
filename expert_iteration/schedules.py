"""How the learning rate and the weight of the KL change in the course of a run."""

import math

from expert_iteration.choices import KLSchedule, Schedule
from expert_iteration.config import LossConfig, OptimizerConfig


def rate_factor(config: OptimizerConfig, step: int, progress: float) -> float:
    """Share of the peak rate at step number `step` (from 0), when `progress` of all steps lies behind.

    Linear and cosine go from 1 at progress 0 to zero at 1; the warm-up multiplies.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    decay = {
        Schedule.constant: 1.0,
        Schedule.linear: 1 - progress,
        Schedule.cosine: (1 + math.cos(math.pi * progress)) / 2,
    }
    return warmup * decay[config.schedule]


def kl_coefficient(config: LossConfig, progress: float) -> float:
    """Weight of the divergence from the reference at `progress`, the share of all steps already taken."""
    left = 1 - progress if config.kl_schedule is KLSchedule.linear else 1.0
    return config.kl_coefficient * left
