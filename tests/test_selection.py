"""Selection is a rule about answers, blind to timing; the transform applies it to whole groups."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torchrl.data import LazyStackStorage, TensorDictReplayBuffer

from expert_iteration.algorithms import Keep
from expert_iteration.batching import Key, flatten_rows, stack, unflatten_rows
from expert_iteration.choices import Duplicates, Prefer, Strategy
from expert_iteration.config import SelectionConfig
from expert_iteration.selection import Candidate, Fate, select
from expert_iteration.selector import TopKRewardSelector
from expert_iteration.traces import runs

configs = st.builds(
    SelectionConfig,
    strategy=st.sampled_from(Strategy),
    top_k=st.none() | st.integers(1, 4),
    min_reward=st.none() | st.sampled_from([0.0, 0.5, 1.0]),
    duplicates=st.sampled_from([Duplicates.keep, Duplicates.text]),
    prefer=st.sampled_from(Prefer),
)
answers = st.builds(
    Candidate,
    prompt_id=st.just(7),
    rollout_index=st.just(0),
    reward=st.sampled_from([0.0, 0.5, 1.0]),
    success=st.booleans(),
    fingerprint=st.integers(0, 3),
)
groups = st.lists(answers, max_size=8).map(
    lambda group: [replace(answer, rollout_index=index) for index, answer in enumerate(group)]
)


def kept(fates: dict[int, Fate]) -> list[int]:
    return sorted(index for index, fate in fates.items() if fate is Fate.KEPT)


def answer(index: int, reward: float = 1.0, fingerprint: int | None = None, prompt_id: int = 0) -> Candidate:
    text = index if fingerprint is None else fingerprint
    return Candidate(prompt_id, index, reward, success=reward == 1.0, fingerprint=text)


@given(group=groups, config=configs, seed=st.integers(0, 9), order=st.randoms(use_true_random=False))
def test_the_order_of_arrival_never_matters(group, config, seed, order):
    shuffled = order.sample(group, len(group))
    assert select(shuffled, config, seed) == select(group, config, seed)


@given(group=groups, config=configs, seed=st.integers(0, 9))
def test_no_wrong_answer_is_kept_unless_the_gate_is_lowered_by_hand(group, config, seed):
    for index in kept(select(group, config, seed)):
        if config.min_reward is None:
            assert group[index].success
        else:
            assert group[index].reward >= config.min_reward


@given(group=groups, config=configs, seed=st.integers(0, 9))
def test_as_many_distinct_answers_are_kept_as_pass_the_gate_up_to_top_k(group, config, seed):
    fates = select(group, config, seed)
    gate = (Fate.UNSUCCESSFUL, Fate.BELOW_MIN_REWARD, Fate.NOT_ABOVE_MEDIAN)
    passing = [index for index, fate in fates.items() if fate not in gate]
    distinct = {group[i].fingerprint for i in passing} if config.duplicates is Duplicates.text else passing
    chosen = kept(fates)
    assert len(chosen) == min(len(distinct), config.top_k or len(group))
    if config.duplicates is Duplicates.text:
        assert len({group[index].fingerprint for index in chosen}) == len(chosen)


@given(group=groups, config=configs, seed=st.integers(0, 9))
def test_top_k_keeps_no_answer_that_is_worse_than_one_left_out(group, config, seed):
    fates = select(group, replace(config, strategy=Strategy.top_k), seed)
    beyond = [group[index].reward for index, fate in fates.items() if fate is Fate.BEYOND_TOP_K]
    assert max(beyond, default=0.0) <= min((group[index].reward for index in kept(fates)), default=1.0)


def test_every_fate_is_told():
    group = [answer(0, fingerprint=5), answer(1, fingerprint=5), answer(2), answer(3, reward=0.0)]
    fates = select(group, SelectionConfig(top_k=1), seed=0)
    assert sorted(fates.values()) == [Fate.BEYOND_TOP_K, Fate.DUPLICATE, Fate.KEPT, Fate.UNSUCCESSFUL]
    assert select([answer(0, reward=0.2)], SelectionConfig(min_reward=0.5), seed=0) == {
        0: Fate.BELOW_MIN_REWARD
    }


@pytest.mark.parametrize("strategy", [Strategy.top_k, Strategy.random])
def test_ties_break_by_seed_and_prompt_and_not_by_position(strategy):
    config = SelectionConfig(strategy=strategy, top_k=1)
    group = [answer(index) for index in range(4)]
    by_seed = [kept(select(group, config, seed))[0] for seed in range(400)]
    by_prompt = [kept(select([replace(a, prompt_id=p) for a in group], config, 0))[0] for p in range(400)]
    for winners in (by_seed, by_prompt):
        assert all(60 < winners.count(index) < 140 for index in range(4))


def test_the_random_strategy_is_blind_to_reward_beyond_the_gate():
    config = SelectionConfig(strategy=Strategy.random, top_k=1, min_reward=0.0)
    group = [answer(0, reward=0.0), answer(1, reward=1.0)]
    winners = [kept(select(group, config, seed))[0] for seed in range(200)]
    assert 60 < winners.count(0) < 140


@pytest.mark.parametrize(
    ("prefer", "winner"), [(Prefer.shortest, 2), (Prefer.most_likely, 1), (Prefer.first, None)]
)
def test_a_preference_decides_between_equal_rewards(prefer, winner):
    group = [
        Candidate(0, i, 1.0, success=True, fingerprint=i, length=length, log_prob=log_prob)
        for i, (length, log_prob) in enumerate([(9, -0.5), (8, -0.1), (3, -0.9)])
    ]
    winners = {kept(select(group, SelectionConfig(top_k=1, prefer=prefer), seed))[0] for seed in range(50)}
    assert winners == ({0, 1, 2} if winner is None else {winner})


def test_a_preference_never_beats_a_reward():
    short = Candidate(0, 0, 0.9, success=True, fingerprint=0, length=1)
    better = Candidate(0, 1, 1.0, success=True, fingerprint=1, length=99)
    assert kept(select([short, better], SelectionConfig(top_k=1, prefer=Prefer.shortest), seed=0)) == [1]


def test_the_most_diverse_answers_are_those_that_share_least():
    traces = [(1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 7), (9, 8, 7, 6, 5, 4)]
    group = [Candidate(0, i, 1.0, True, i, runs=frozenset(runs(trace))) for i, trace in enumerate(traces)]
    for seed in range(20):
        chosen = kept(select(group, SelectionConfig(top_k=2, prefer=Prefer.most_diverse), seed))
        assert 2 in chosen and len(chosen) == 2


def test_whole_groups_are_kept_where_answers_differ_and_nothing_where_they_do_not():
    config = SelectionConfig(duplicates=Duplicates.keep)
    mixed, right, wrong = ([answer(0, reward=a), answer(1, reward=b)] for a, b in [(1, 0), (1, 1), (0, 0)])
    assert kept(select(mixed, config, 0, Keep.GROUPS)) == [0, 1]
    for group in (right, wrong):
        assert set(select(group, config, 0, Keep.GROUPS).values()) == {Fate.NO_SIGNAL}
        assert kept(select(group, config, 0, Keep.ALL)) == [0, 1]


@pytest.mark.parametrize(("right", "stays"), [(0, 0), (1, 1), (4, 4), (5, 0), (8, 0)])
def test_torchrl_keeps_what_lies_above_the_lower_median_alone(right, stays):
    config = SelectionConfig(strategy=Strategy.compat_torchrl, duplicates=Duplicates.keep)
    group = [answer(index, reward=float(index < right)) for index in range(8)]
    assert len(kept(select(group, config, seed=0))) == stays
    assert len(kept(select(group, SelectionConfig(duplicates=Duplicates.keep), seed=0))) == right


def row(group_id: int, index: int, size: int, reward: float = 1.0) -> TensorDict:
    scalars = {
        "group_id": group_id,
        "group_size": size,
        "prompt_id": group_id % 3,
        "rollout_index": index,
        "policy_version": 0,
        "fingerprint": index,
    }
    leaves: dict[Key, torch.Tensor] = {key: torch.tensor(value) for key, value in scalars.items()}
    leaves["tokens", "full"] = torch.arange(3 + index)
    leaves["masks", "response"] = torch.arange(3 + index) >= 2
    leaves["log_probs", "sampled"] = torch.zeros(3 + index)
    leaves["reward"] = torch.tensor([reward])
    leaves["success"] = torch.tensor([reward == 1.0])
    return TensorDict(leaves)


def replay(selector: TopKRewardSelector) -> TensorDictReplayBuffer:
    return TensorDictReplayBuffer(storage=LazyStackStorage(100), transform=selector)


def contents(buffer: TensorDictReplayBuffer) -> list[tuple[int, int]]:
    rows = [buffer.storage.get(slot) for slot in range(len(buffer))]
    return [(int(row["group_id"]), int(row["rollout_index"])) for row in rows]


def test_a_group_enters_the_buffer_when_it_is_complete_and_not_before():
    buffer = replay(selector := TopKRewardSelector(SelectionConfig(), seed=0))
    assert buffer.extend(stack([row(0, 1, size=2)])).numel() == 0
    assert contents(buffer) == [] and selector.fates == {}
    buffer.extend(stack([row(0, 0, size=2)]))
    assert contents(buffer) == [(0, 0), (0, 1)]
    assert selector.fates == {0: {0: Fate.KEPT, 1: Fate.KEPT}}


@given(order=st.permutations([(group_id, index) for group_id in range(3) for index in range(4)]))
@settings(max_examples=25, deadline=None)
def test_two_visits_of_one_prompt_never_mix(order):
    rewards = {0: (1.0, 0.0, 0.0, 0.0), 1: (0.0,) * 4, 2: (1.0,) * 4}
    buffer = replay(TopKRewardSelector(SelectionConfig(), seed=0, in_order=True))
    for group_id, index in order:
        same_prompt = row(group_id, index, size=4, reward=rewards[group_id][index])
        same_prompt["prompt_id"] = torch.tensor(0)
        buffer.extend(stack([same_prompt]))
    assert contents(buffer) == [(0, 0), (2, 0), (2, 1), (2, 2), (2, 3)]


def test_five_right_answers_of_eight_are_all_kept():
    buffer = replay(TopKRewardSelector(SelectionConfig(), seed=0))
    buffer.extend(stack([row(0, index, size=8, reward=float(index < 5)) for index in range(8)]))
    assert contents(buffer) == [(0, index) for index in range(5)]


def test_in_order_the_kept_rows_wait_for_their_turn_and_empty_groups_take_theirs():
    buffer = replay(selector := TopKRewardSelector(SelectionConfig(), seed=0, in_order=True))
    buffer.extend(stack([row(2, 0, size=1)]))
    assert selector.fates == {2: {0: Fate.KEPT}} and contents(buffer) == []
    buffer.extend(stack([row(0, 0, size=1)]))
    assert contents(buffer) == [(0, 0)]
    selector.skip(1)
    buffer.extend(TensorDict(batch_size=[0]))
    assert contents(buffer) == [(0, 0), (2, 0)] and selector.next_group == 3


def test_a_group_that_comes_twice_is_refused():
    buffer = replay(selector := TopKRewardSelector(SelectionConfig(), seed=0))
    buffer.extend(stack([row(1, 0, size=1)]))
    with pytest.raises(AssertionError, match="group 1 came twice"):
        buffer.extend(stack([row(1, 0, size=1)]))
    with pytest.raises(AssertionError, match="group 1 came twice"):
        selector.skip(1)


def test_unfinished_and_early_groups_survive_a_checkpoint():
    arrivals = [row(1, 0, size=2), row(2, 0, size=1), row(0, 1, size=2), row(1, 1, size=2), row(0, 0, size=2)]
    straight = replay(TopKRewardSelector(SelectionConfig(), seed=0, in_order=True))
    for arrival in arrivals:
        straight.extend(stack([arrival]))
    for stop in range(len(arrivals)):
        before = replay(saved := TopKRewardSelector(SelectionConfig(), seed=0, in_order=True))
        for arrival in arrivals[:stop]:
            before.extend(stack([arrival]))
        plain, rows = saved.state()
        after = replay(resumed := TopKRewardSelector(SelectionConfig(), seed=0, in_order=True))
        resumed.restore(json.loads(json.dumps(plain)), unflatten_rows(flatten_rows(rows)))
        for arrival in arrivals[stop:]:
            after.extend(stack([arrival]))
        assert contents(before) + contents(after) == contents(straight)
