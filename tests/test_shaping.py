"""Laws of the shaped reward."""

import math
from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st

from expert_iteration.checks import from_hydra
from expert_iteration.config import ConfigError, RewardConfig, SelectionConfig
from expert_iteration.grading.shaping import brevity, shaped, variety
from expert_iteration.launch import config_folder, register
from expert_iteration.selection import Candidate, Fate, select
from expert_iteration.types import Outcome, Verdict

MOST_INSTRUCTIONS = 200
MAX_TOKENS = 40


@st.composite
def legal_shares(draw):
    """Three shares with a sum of at most 0.5; often exactly that."""
    total = draw(st.just(0.5) | st.floats(0, 0.5))
    first, second = sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
    shares = (total * first, total * (second - first), total * (1 - second))
    return RewardConfig(*draw(st.permutations(shares)))


partial_credit = st.integers(1, MOST_INSTRUCTIONS).flatmap(
    lambda asked: st.integers(0, asked - 1).map(lambda met: met / asked)
)
formats = st.floats(0, 1)
correct = st.builds(Verdict, st.just(Outcome.CORRECT), st.just(""), formats)
wrong = st.builds(
    Verdict, st.sampled_from([Outcome.WRONG, Outcome.UNPARSABLE]), st.just(""), formats, partial_credit
)
responses = st.lists(st.integers(0, 5), max_size=MAX_TOKENS + 5)


def reward(config, verdict, response):
    return shaped(config, verdict, response, MAX_TOKENS)


@given(config=legal_shares(), verdict=correct | wrong, response=responses)
def test_a_reward_lies_between_0_and_1(config, verdict, response):
    assert 0 <= reward(config, verdict, response) <= 1


@given(verdict=correct | wrong, response=responses)
def test_without_shares_the_reward_is_the_answer_reward(verdict, response):
    assert reward(RewardConfig(), verdict, response) == verdict.answer_reward


@given(config=legal_shares(), right=correct, other=wrong, said=responses, said_otherwise=responses)
def test_every_correct_answer_beats_every_other_one_even_in_float32(
    config, right, other, said, said_otherwise
):
    better, worse = reward(config, right, said), reward(config, other, said_otherwise)
    assert torch.tensor(better) > torch.tensor(worse)
    assert better - worse >= (1 - other.partial) / 4 - 1e-12


@given(config=legal_shares(), verdict=correct | wrong, response=responses, other=formats)
def test_a_better_format_never_costs(config, verdict, response, other):
    low, high = sorted((verdict.format_reward, other))
    rewards = [reward(config, replace(verdict, format_reward=value), response) for value in (low, high)]
    assert rewards[0] <= rewards[1]


@given(config=legal_shares(), verdict=wrong, response=responses, other=partial_credit)
def test_more_partial_credit_never_costs_and_a_correct_answer_earns_more(config, verdict, response, other):
    credits = sorted((verdict.partial, other))
    steps = [replace(verdict, partial=credit) for credit in credits]
    steps.append(replace(verdict, outcome=Outcome.CORRECT))
    rewards = [reward(config, step, response) for step in steps]
    assert rewards == sorted(rewards)
    assert rewards[1] < rewards[2]


@given(
    config=legal_shares(), verdict=correct | wrong, lengths=st.tuples(st.integers(4, 60), st.integers(4, 60))
)
def test_a_shorter_response_of_the_same_variety_never_costs(config, verdict, lengths):
    short, long = sorted(lengths)
    assert variety(range(short)) == variety(range(long)) == 1
    assert reward(config, verdict, range(short)) >= reward(config, verdict, range(long))


@given(config=legal_shares(), verdict=correct | wrong, response=responses)
def test_more_variety_at_the_same_length_never_costs(config, verdict, response):
    assert reward(config, verdict, range(len(response))) >= reward(config, verdict, response)


def test_brevity_is_the_part_of_the_budget_that_was_not_used():
    assert [brevity(range(length), 10) for length in (0, 5, 10)] == [1, 0.5, 0]
    assert brevity(range(11), 10) == 0, "a worked response may be longer than the budget"


def test_variety_falls_when_runs_of_tokens_come_back():
    assert variety([1, 2, 3, 4, 5]) == 1
    assert variety([7] * 8) == 1 / 5
    assert variety([1, 2, 1, 2, 1, 2]) == 2 / 3
    assert variety([]) == variety([7] * 4) == 1, "too short to repeat a run"


def test_an_empty_response_earns_less_than_the_worst_correct_one():
    everything = RewardConfig(format=0, brevity=0.25, variety=0.25)
    empty = reward(everything, Verdict(Outcome.UNPARSABLE, "empty"), [])
    endless = reward(everything, Verdict(Outcome.CORRECT, "exact"), [7] * MAX_TOKENS)
    assert empty == 0.25
    assert endless > 0.5


def test_the_largest_share_of_one_quality_does_not_lift_a_wrong_answer_to_a_correct_one():
    shares = RewardConfig(format=0.5)
    assert reward(shares, Verdict(Outcome.WRONG, "", format_reward=1.0), [1]) == 0.25
    assert reward(shares, Verdict(Outcome.CORRECT, "", format_reward=0.0), [1]) == 0.5


@given(rewards=st.lists(st.floats(0, 1), min_size=1, max_size=8), top_k=st.integers(1, 8))
def test_a_wrong_answer_is_not_kept_whatever_its_reward(rewards, top_k):
    candidates = [Candidate(0, i, value, success=False, fingerprint=i) for i, value in enumerate(rewards)]
    fates = select(candidates, SelectionConfig(top_k=top_k), seed=0)
    assert set(fates.values()) == {Fate.UNSUCCESSFUL}


@given(rewards=st.lists(st.floats(0.5, 1), min_size=1, max_size=8, unique=True), top_k=st.integers(1, 8))
def test_of_correct_answers_the_best_rewards_are_kept(rewards, top_k):
    candidates = [Candidate(0, i, value, success=True, fingerprint=i) for i, value in enumerate(rewards)]
    fates = select(candidates, SelectionConfig(top_k=top_k), seed=0)
    kept = [rewards[i] for i, fate in fates.items() if fate is Fate.KEPT]
    assert sorted(kept, reverse=True) == sorted(rewards, reverse=True)[:top_k]


def composed(*overrides):
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return from_hydra(compose("train", overrides=list(overrides)))


def test_shares_of_up_to_a_half_are_accepted_and_reach_the_reward():
    config = composed("reward.format=0.3", "reward.brevity=0.1", "reward.variety=0.1").reward
    assert math.isclose(reward(config, Verdict(Outcome.CORRECT, "", format_reward=1.0), range(20)), 0.95)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["reward.format=0.4", "reward.brevity=0.2"], ["reward.format", "reward.brevity", "0.6", "0.5"]),
        (["reward.variety=-0.1"], ["reward.variety (-0.1)", "at least 0"]),
    ],
)
def test_shares_that_are_negative_or_exceed_a_half_are_refused(overrides, words):
    with pytest.raises(ConfigError) as refusal:
        composed(*overrides)
    for word in words:
        assert word in str(refusal.value)
