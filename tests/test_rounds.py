"""Which answers an evaluation asks for, and which combinations are refused."""

from itertools import combinations, pairwise, product

import pytest

from expert_iteration.config import ConfigError
from expert_iteration.rounds import GREEDY, Round, ks_of, rounds_of
from tests.test_config import composed


def test_an_evaluation_asks_one_greedy_round_and_samples_at_each_temperature_and_seed():
    config = composed("eval.samples=3", "eval.temperatures=[0.6,1.0]", "eval.seeds=[0,7]")
    greedy, *sampled = rounds_of(config)
    assert greedy == GREEDY
    assert sampled == [Round(t, seed, sample) for t, seed, sample in product((0.6, 1.0), (0, 7), range(3))]


def test_by_default_there_is_one_sample_at_the_temperature_of_training():
    config = composed("sampling.temperature=0.8")
    assert rounds_of(config) == [GREEDY, Round(0.8, 0, 0)]
    assert ks_of(config.eval) == [1]


def test_pass_at_1_is_always_measured_and_pass_at_n_unless_ks_say_otherwise():
    assert ks_of(composed("eval.samples=8").eval) == [1, 8]
    assert ks_of(composed("eval.samples=8", "eval.ks=[4,2]").eval) == [1, 2, 4]


def test_no_two_answers_of_an_evaluation_share_a_seed():
    asked = 5_000
    starts = sorted(Round(1.0, seed, sample).engine_seed for seed in range(8) for sample in range(64))
    assert min(late - early for early, late in pairwise(starts)) > asked
    assert Round(1.0, 0, 0).engine_seed == 0
    far = [Round(1.0, seed, 0).engine_seed for seed in (0, 1, 2**16, 2**18, 12345)]
    assert all(one != other for one, other in combinations(far, 2))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["eval.samples=4", "eval.ks=[1,8]"], ["eval.ks (8) exceeds eval.samples (4)", "raise the latter"]),
        (["eval.ks=[0]"], ["eval.ks (0)", "at least 1"]),
        (["eval.samples=0"], ["eval.samples (0)", "at least 1"]),
        (["eval.samples=5000"], ["eval.samples (5000) exceeds 4096"]),
        (["eval.seeds=[]"], ["eval.seeds (none)"]),
        (["eval.seeds=[1,1]"], ["eval.seeds (1, 1)", "each once"]),
        (["eval.seeds=[-1]"], ["eval.seeds (-1)", "at least 0"]),
        (["eval.temperatures=[]"], ["eval.temperatures (none)"]),
        (["eval.temperatures=[-0.5]"], ["eval.temperatures (-0.5)"]),
        (["eval.samples=2", "eval.temperatures=[0,1]"], ["eval.samples (2)", "temperature 0"]),
        (["eval.samples=2", "sampling.temperature=0"], ["eval.samples (2)", "raise sampling.temperature"]),
    ],
)
def test_combinations_that_cannot_work_are_refused(overrides, words):
    with pytest.raises(ConfigError) as refusal:
        composed(*overrides)
    for word in words:
        assert word in str(refusal.value)
