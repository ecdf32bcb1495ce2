"""What the benchmark of the dispatcher says of a small iteration, in simulated time."""

import pytest

from scripts.benchmark.dispatch import Setting, portions, shares, simulate

SMALL = Setting(groups=256, answers=4, at_once=64, mean=200.0, spread=0.8)


@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize("case", ["even", "sorted", "slow engine"])
def test_every_engine_is_busy_as_long_as_work_is_left(case: str, replicas: int) -> None:
    assert min(simulate(SMALL, case, replicas, portions).busy) > 0.9


def test_a_share_each_leaves_engines_idle_where_shares_take_unequal_times() -> None:
    fixed, queued = (simulate(SMALL, "sorted", 4, way) for way in (shares, portions))
    assert min(fixed.busy) < 0.9
    assert queued.seconds < fixed.seconds


def test_a_single_engine_takes_as_long_either_way() -> None:
    fixed, queued = (simulate(SMALL, "even", 1, way) for way in (shares, portions))
    assert queued.seconds == pytest.approx(fixed.seconds, abs=1.0)


def test_simulated_time_is_the_same_each_time() -> None:
    assert simulate(SMALL, "even", 2, portions) == simulate(SMALL, "even", 2, portions)
