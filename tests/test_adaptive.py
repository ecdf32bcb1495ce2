"""Batch size and learning rate follow the number of samples."""

import pytest

from expert_iteration.adaptive import batch_size, peak_rate
from expert_iteration.config import AdaptiveConfig, OptimizerConfig, RunConfig


@pytest.mark.parametrize(
    ("samples", "size", "rate"),
    [(0, 8, 3.5e-5), (23, 8, 3.5e-5), (24, 32, 5e-5), (128, 32, 5e-5), (129, 64, 7e-5), (5000, 64, 7e-5)],
)
def test_the_published_table_decides_when_it_is_enabled(samples: int, size: int, rate: float) -> None:
    config = RunConfig(adaptive=AdaptiveConfig(enabled=True))
    assert (batch_size(config, samples), peak_rate(config, samples)) == (size, rate)


def test_without_it_the_configured_numbers_hold() -> None:
    config = RunConfig(batch_size=5, optimizer=OptimizerConfig(learning_rate=0.1))
    assert (batch_size(config, 7), peak_rate(config, 7)) == (5, 0.1)
