"""Collapses and plateaus are noticed, and nothing else is."""

import pytest

from expert_iteration.config import HealthConfig
from expert_iteration.health import Health


def rates(entropy: float = 0.5, distinct: float = 0.8) -> dict[str, float]:
    return {"rollout/entropy": entropy, "rollout/distinct": distinct}


def test_entropy_is_compared_with_that_of_the_first_iteration() -> None:
    health, config = Health(), HealthConfig(entropy_floor=0.1)
    assert health.collapse(rates(entropy=0.5), config) is None
    assert health.collapse(rates(entropy=0.051), config) is None
    problem = health.collapse(rates(entropy=0.049), config)
    assert problem is not None and "0.049 nats" in problem and "health.entropy_floor" in problem


def test_answers_that_are_all_alike_are_a_collapse_where_a_floor_is_set() -> None:
    assert Health().collapse(rates(distinct=0.25), HealthConfig()) is None
    problem = Health().collapse(rates(distinct=0.25), HealthConfig(distinct_floor=0.3))
    assert problem is not None and "25%" in problem and "health.distinct_floor" in problem


def test_a_plateau_is_so_many_evaluations_in_a_row_without_a_better_one() -> None:
    health, config = Health(), HealthConfig(patience=2, min_improvement=0.01)
    found = [health.plateau(accuracy, config) for accuracy in (0.3, 0.5, 0.505, 0.6, 0.6, 0.55, 0.7)]
    assert found == [False, False, False, False, False, True, False]


def test_without_patience_a_run_goes_on() -> None:
    health = Health()
    assert not any(health.plateau(0.5, HealthConfig()) for _ in range(50))


@pytest.mark.parametrize(("start", "after"), [(1.0, [1.2, 1.44, 1.5, 1.5]), (2.0, [2.0, 2.0])])
def test_the_temperature_rises_to_its_limit_and_never_falls(start: float, after: list[float]) -> None:
    health, config = Health(), HealthConfig(temperature_factor=1.2, max_temperature=1.5)
    assert [health.raise_temperature(start, config) for _ in after] == pytest.approx(after)
