"""A step whose numbers went wrong is left out, and a run that only goes wrong ends."""

import json
import logging
import math
import pickle
from dataclasses import asdict

import pytest

from expert_iteration.config import OptimizerConfig
from expert_iteration.guard import FEWEST, WINDOW, Diverged, Fault, Guard

OPTIONS = OptimizerConfig(learning_rate=1e-3, spike_factor=4.0, max_skipped=3)


def after(norms: list[float], options: OptimizerConfig = OPTIONS) -> Guard:
    """A guard that has seen steps with `norms`."""
    guard = Guard()
    for step, norm in enumerate(norms):
        guard.judge(step, 1.0, norm, options)
    return guard


def judge(guard: Guard, norm: float, loss: float = 1.0, options: OptimizerConfig = OPTIONS) -> Fault | None:
    return guard.judge(99, loss, norm, options)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_step_that_is_not_finite_is_left_out_from_the_first_on(wrong: float) -> None:
    for options in (OPTIONS, OptimizerConfig(learning_rate=1e-3)):
        assert judge(Guard(), norm=wrong, options=options) is Fault.NOT_FINITE
        assert judge(Guard(), norm=1.0, loss=wrong, options=options) is Fault.NOT_FINITE


def test_a_norm_above_the_factor_times_the_median_is_a_spike() -> None:
    norms = [1.0] * (FEWEST - 7) + [100.0] * 7
    assert judge(after(norms, OptimizerConfig()), norm=4.0) is None
    assert judge(after(norms, OptimizerConfig()), norm=4.01) is Fault.SPIKE


def test_nothing_is_a_spike_before_there_are_norms_to_compare_with() -> None:
    assert judge(after([1.0] * (FEWEST - 1)), norm=1e9) is None
    assert judge(after([1.0] * FEWEST), norm=1e9) is Fault.SPIKE


def test_nothing_is_a_spike_without_a_factor() -> None:
    assert judge(after([1.0] * WINDOW), norm=1e9, options=OptimizerConfig()) is None


def test_the_norms_of_steps_that_are_left_out_do_not_raise_the_median() -> None:
    guard = after([1.0] * FEWEST)
    for _ in range(2 * WINDOW):
        assert judge(guard, norm=50.0) is Fault.SPIKE
    assert guard.norms == [1.0] * FEWEST


def test_the_median_follows_the_last_norms_of_the_window() -> None:
    guard = after([1.0] * WINDOW + [3.0] * WINDOW)
    assert guard.norms == [3.0] * WINDOW
    assert judge(guard, norm=11.0) is None


def test_steps_without_a_gradient_do_not_make_all_others_spikes() -> None:
    guard = after([0.0] * WINDOW)
    assert judge(guard, norm=1.0) is None


def test_it_gives_up_after_so_many_in_a_row_of_either_kind() -> None:
    guard = after([1.0] * FEWEST)
    for norm in (50.0, math.nan):
        judge(guard, norm)
        guard.give_up(1.0, norm, OPTIONS)
    judge(guard, norm=60.0)
    with pytest.raises(Diverged, match="3 optimizer steps in a row"):
        guard.give_up(1.0, 60.0, OPTIONS)


def test_one_step_that_is_taken_ends_the_row() -> None:
    guard = after([1.0] * FEWEST)
    for norm in (50.0, 50.0, 1.0, 50.0, 50.0):
        judge(guard, norm)
        guard.give_up(1.0, norm, OPTIONS)
    assert guard.left_out == 2


def test_the_last_word_has_the_numbers_and_the_way_out() -> None:
    guard = after([0.25, 0.5, 0.75])
    for _ in range(3):
        judge(guard, norm=math.inf, loss=math.nan)
    with pytest.raises(Diverged) as end:
        guard.give_up(math.nan, math.inf, OPTIONS)
    for words in ("3 optimizer", "loss nan", "norm inf", "0.25, 0.5, 0.75", "learning_rate (0.001)"):
        assert words in str(end.value)
    assert "spike_factor (4)" in str(end.value)


def test_its_last_word_survives_the_way_between_processes() -> None:
    arrived = pickle.loads(pickle.dumps(Diverged("10 steps")))
    assert isinstance(arrived, Diverged) and str(arrived) == "10 steps"


def test_a_step_that_is_left_out_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="expert_iteration"):
        judge(Guard(), norm=math.nan, loss=2.5)
    assert "step 99 is left out: loss or gradient is not finite (loss 2.5, norm nan)" in caplog.text


def test_its_state_survives_json_to_the_bit() -> None:
    guard = after([1 / 3 + i / 7 for i in range(40)])
    judge(guard, norm=math.nan)
    again = Guard(**json.loads(json.dumps(asdict(guard), allow_nan=False)))
    assert again == guard and again.left_out == 1
