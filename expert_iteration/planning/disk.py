"""What a run writes: checkpoints, and the log of every rollout."""

from dataclasses import dataclass

from expert_iteration.config import RunConfig
from expert_iteration.planning.memory import buffer_bytes, trained_bytes
from expert_iteration.planning.shapes import Shape

ROW = 500
"""Bytes of a line of rollouts/ without the answer: its question, verdict, reward and names, about."""
PER_TOKEN = 4
"""Characters of text that a token stands for, about."""
PER_TOKEN_WRITTEN = 12
"""Bytes that logger.tokens adds for each token: its id and its log-prob."""
PER_PROMPT = 240
"""Bytes of a prompt in the ledger, about."""
LENGTH = 0.5
"""Mean length of an answer, as a share of sampling.max_tokens, where nobody measured it."""


@dataclass(frozen=True)
class DiskUse:
    """In bytes."""

    checkpoint: int
    """One of them."""
    kept: int
    """Checkpoints that are there in the end."""
    rollouts: int
    samples: bool
    """Whether a checkpoint holds samples that are still to be learned."""

    @property
    def most(self) -> int:
        """While a checkpoint is written, the ones before are still there."""
        return self.checkpoint * (self.kept + 1) + self.rollouts

    @property
    def end(self) -> int:
        return self.checkpoint * self.kept + self.rollouts


def disk_use(config: RunConfig, shape: Shape, written: int, answers: float, length: float | None) -> DiskUse:
    """What the run folder takes after `written` checkpoints and `answers` sampled, of `length` tokens each.

    A checkpoint holds what is trained and its two moments.
    """
    kept = min(written, config.checkpoint.keep_last + config.checkpoint.keep_best)
    tokens = config.sampling.max_tokens * LENGTH if length is None else length
    row = ROW + tokens * (PER_TOKEN + PER_TOKEN_WRITTEN * config.logger.tokens)
    checkpoint = 3 * trained_bytes(config, shape)
    checkpoint += PER_PROMPT * config.prompts_per_iteration * config.iterations
    # a synchronous run has learned all of its samples when it saves
    samples = config.mode.max_staleness > 0 or config.algorithm.accumulate
    if samples:
        checkpoint += buffer_bytes(config)
    return DiskUse(checkpoint, kept, round(answers * row), samples)
