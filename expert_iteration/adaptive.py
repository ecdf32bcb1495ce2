"""Batch size and learning rate of an iteration by the number of samples it learns from."""

from expert_iteration.config import AdaptiveRow, RunConfig


def batch_size(config: RunConfig, samples: int) -> int:
    """Sequences per optimizer step when `samples` are held."""
    return row_for(config, samples).batch_size


def peak_rate(config: RunConfig, samples: int) -> float:
    """Peak learning rate when `samples` are held."""
    return row_for(config, samples).learning_rate


def row_for(config: RunConfig, samples: int) -> AdaptiveRow:
    """The first row of the table that admits `samples`; without a table, the configured numbers."""
    if not config.adaptive.enabled:
        return AdaptiveRow(None, config.batch_size, config.optimizer.learning_rate)
    return next(row for row in config.adaptive.table if row.at_most is None or samples <= row.at_most)
