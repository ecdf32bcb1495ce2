"""The two laws of the buffer, for every sampler, in synchronous and asynchronous runs."""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from random import Random
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from expert_iteration.batching import FINGERPRINT, WEIGHT, flatten_rows, unflatten_rows
from expert_iteration.buffer import BufferStatus, RolloutBuffer
from expert_iteration.choices import Priority, Sampler
from expert_iteration.config import (
    AdaptiveConfig,
    AdaptiveRow,
    AlgorithmConfig,
    BufferConfig,
    ModeConfig,
    RunConfig,
    SelectionConfig,
)
from expert_iteration.samplers import PRIORITY_FLOOR
from expert_iteration.segment_trees import MinTree, SumTree
from expert_iteration.selection import Fate

samplers = pytest.mark.parametrize("sampler", Sampler)


def config(
    sampler: Sampler = Sampler.without_replacement,
    max_staleness: int = 0,
    epochs: int = 2,
    batch_size: int = 4,
    capacity: int = 1000,
) -> RunConfig:
    return RunConfig(
        epochs=epochs,
        batch_size=batch_size,
        mode=ModeConfig(max_staleness=max_staleness),
        algorithm=AlgorithmConfig(name="expert_iteration"),
        selection=SelectionConfig(min_reward=0.0),
        buffer=BufferConfig(sampler=sampler, capacity=capacity),
    )


def rows_of(
    group_id: int, size: int, version: int = 0, reward: float = 1.0, pass_rate: float | None = None
) -> list[TensorDict]:
    """A group of different answers, whose fingerprint names the row."""
    return [
        TensorDict(
            {
                ("tokens", "full"): torch.arange(3 + index),
                ("masks", "response"): torch.arange(3 + index) >= 2,
                ("log_probs", "sampled"): torch.zeros(3 + index),
                "reward": torch.tensor([reward]),
                "success": torch.tensor([True]),
                "group_id": torch.tensor(group_id),
                "group_size": torch.tensor(size),
                "prompt_id": torch.tensor(group_id),
                "rollout_index": torch.tensor(index),
                "policy_version": torch.tensor(version),
                "pass_rate": torch.tensor(1.0 if pass_rate is None else pass_rate),
                "fingerprint": torch.tensor(100 * group_id + index),
            }
        )
        for index in range(size)
    ]


def names(rows: Iterable[TensorDict]) -> list[int]:
    return [int(row[FINGERPRINT]) for row in rows]


def flat(batches: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(batches))


def draw_all(buffer: RolloutBuffer, first_step: int = 0) -> list[list[int]]:
    batches: list[list[int]] = []
    while buffer.reads_left():
        batches.append(names(buffer.draw(first_step + len(batches))))
    return batches


def filled(config: RunConfig, groups: int = 5, size: int = 2) -> RolloutBuffer:
    buffer = RolloutBuffer(config)
    for group_id in range(groups):
        buffer.add(group_id, rows_of(group_id, size))
    return buffer


def assert_books_balance(status: BufferStatus, epochs: int) -> None:
    assert status.reads + status.forfeited + status.reads_left == epochs * status.written
    assert status.reads_left >= 0
    assert (status.reads_left > 0) == (status.steps_left > 0)


@given(epochs=st.integers(1, 3), batch_size=st.integers(1, 7), rows=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_a_synchronous_iteration_is_whole_passes_that_read_every_row_once(epochs, batch_size, rows):
    buffer = RolloutBuffer(config(epochs=epochs, batch_size=batch_size))
    buffer.add(0, rows_of(0, rows))
    steps = buffer.steps_left()
    batches = draw_all(buffer)
    per_pass = -(-rows // batch_size)
    assert len(batches) == steps == epochs * per_pass
    for start in range(0, steps, per_pass):
        one_pass = batches[start : start + per_pass]
        assert sorted(flat(one_pass)) == list(range(rows))
        assert {len(batch) for batch in one_pass[:-1]} <= {batch_size}


@samplers
def test_the_buffer_is_read_epochs_times_as_often_as_it_was_written(sampler):
    buffer = filled(config(sampler, epochs=3, batch_size=4))
    steps = buffer.steps_left()
    batches = draw_all(buffer)
    assert sum(map(len, batches)) == 3 * 10 and len(batches) == steps
    assert all(len(batch) <= 4 for batch in batches)
    with pytest.raises(AssertionError, match="nothing is left"):
        buffer.draw(len(batches))


@given(order=st.permutations(range(4)), sampler=st.sampled_from(Sampler), seed=st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_a_synchronous_run_does_not_depend_on_the_order_of_arrival(order, sampler, seed):
    groups = {0: rows_of(0, 3), 1: [], 2: rows_of(2, 1), 3: rows_of(3, 4)}
    runs = []
    for arrival in (range(4), order):
        run = config(sampler)
        run.seed = seed
        buffer = RolloutBuffer(run)
        for group_id in arrival:
            buffer.add(group_id, groups[group_id])
        runs.append(draw_all(buffer))
    assert runs[0] == runs[1]


def test_a_group_that_waits_for_its_turn_is_decided_but_not_yet_written():
    buffer = RolloutBuffer(config())
    assert buffer.add(1, rows_of(1, 2)) == {0: Fate.KEPT, 1: Fate.KEPT}
    assert buffer.status().live == 0 and buffer.missing(range(3)) == [0, 2]
    assert buffer.add(0, []) == {}
    assert buffer.status().live == 2 and buffer.missing(range(3)) == [2]


def test_an_asynchronous_buffer_writes_at_once_and_knows_what_is_missing():
    buffer = RolloutBuffer(config(max_staleness=1))
    buffer.add(2, rows_of(2, 2))
    buffer.add(0, [])
    assert buffer.status().live == 2 and buffer.missing(range(4)) == [1, 3]


@samplers
@pytest.mark.parametrize("max_staleness", [0, 2])
@given(seed=st.integers(0, 10**6), epochs=st.integers(1, 3), batch_size=st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_the_laws_hold_whatever_happens(sampler, max_staleness, seed, epochs, batch_size):
    buffer = RolloutBuffer(config(sampler, max_staleness, epochs, batch_size, capacity=12))
    chance = Random(seed)
    version = step = group_id = 0
    drawn: Counter[int] = Counter()
    for _ in range(40):
        event = chance.choice(["add", "draw", "draw", "publish"])
        if event == "add":
            born = version - chance.randint(0, max_staleness + 1)
            buffer.add(group_id, rows_of(group_id, chance.randint(0, 5), born))
            group_id += 1
        elif event == "publish":
            version += 1
            buffer.set_version(version)
        elif buffer.reads_left():
            rows = buffer.draw(step)
            assert 0 < len(rows) <= batch_size
            assert all(version - int(row["policy_version"]) <= max_staleness for row in rows)
            drawn.update(names(rows))
            step += 1
        status = buffer.status()
        assert_books_balance(status, epochs)
        assert status.live <= 12 and status.oldest_age <= max_staleness
        assert status.reads == drawn.total()
    if sampler is Sampler.without_replacement:
        assert max(drawn.values(), default=0) <= epochs


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    epochs=st.integers(1, 3),
    batch=st.integers(1, 6),
)
@settings(max_examples=40, deadline=None)
def test_rows_that_come_between_two_draws_are_read_epochs_times_too(sizes, epochs, batch):
    buffer = RolloutBuffer(config(max_staleness=1, epochs=epochs, batch_size=batch))
    batches: list[list[int]] = []
    for group_id, size in enumerate(sizes):
        buffer.add(group_id, rows_of(group_id, size))
        batches.append(names(buffer.draw(len(batches))))
    steps = buffer.steps_left()
    rest = draw_all(buffer, first_step=len(batches))
    assert len(rest) == steps
    assert all(len(set(batch)) == len(batch) for batch in batches + rest)
    assert set(Counter(flat(batches + rest)).values()) == {epochs}


def test_an_asynchronous_batch_is_full_where_a_pass_ends():
    buffer = filled(config(max_staleness=1, epochs=2, batch_size=4), groups=3, size=2)
    assert [len(batch) for batch in draw_all(buffer)] == [4, 4, 4]


@samplers
def test_every_rank_gets_its_share_of_one_global_batch(sampler):
    whole = names(filled(config(sampler, batch_size=5)).draw(7))
    buffer = filled(config(sampler, batch_size=5))
    shards = {rank: names(buffer.draw(7, rank, world_size=3)) for rank in (2, 0, 1)}
    assert [shards[i % 3][i // 3] for i in range(5)] == whole
    assert buffer.status().reads == 5


def test_asking_for_an_old_step_is_an_error():
    buffer = filled(config())
    buffer.draw(0, rank=0, world_size=2)
    buffer.draw(1, rank=0, world_size=2)
    buffer.draw(0, rank=1, world_size=2)
    with pytest.raises(AssertionError, match="step 0 was drawn before; the last one was 1"):
        buffer.draw(0, rank=1, world_size=2)


def test_rows_that_grow_too_old_leave_and_their_unread_uses_are_counted():
    buffer = RolloutBuffer(config(max_staleness=1, epochs=2, batch_size=2))
    buffer.add(0, rows_of(0, 2, version=0))
    buffer.add(1, rows_of(1, 2, version=1))
    buffer.draw(0)
    buffer.set_version(1)
    assert buffer.status().live == 4 and buffer.status().oldest_age == 1
    buffer.set_version(2)
    assert buffer.status() == BufferStatus(
        live=2, reads_left=4, steps_left=2, oldest_age=1, written=4, reads=2, expired=2, forfeited=2
    )
    assert sorted(names(buffer.draw(1))) == [100, 101]


def test_rows_that_would_expire_first_are_used_up_first():
    buffer = RolloutBuffer(config(max_staleness=1, epochs=2, batch_size=2))
    buffer.add(0, rows_of(0, 2, version=1))
    buffer.add(1, rows_of(1, 2, version=0))
    drawn = [sorted(names(buffer.draw(step))) for step in range(4)]
    assert drawn == [[100, 101], [100, 101], [0, 1], [0, 1]]


def test_rows_that_were_used_up_do_not_expire():
    buffer = filled(config(epochs=1))
    draw_all(buffer)
    buffer.set_version(1)
    status = buffer.status()
    assert (status.live, status.expired, status.forfeited, status.reads) == (0, 0, 0, 10)


def test_a_row_that_arrives_too_old_is_never_drawn():
    buffer = RolloutBuffer(config(max_staleness=1))
    buffer.set_version(5)
    buffer.add(0, rows_of(0, 2, version=3))
    assert buffer.status() == BufferStatus(0, 0, 0, 0, written=2, reads=0, expired=2, forfeited=4)


def test_a_full_buffer_overwrites_the_oldest_rows_even_after_some_have_expired():
    buffer = RolloutBuffer(config(max_staleness=1, epochs=1, capacity=6))
    for group_id, version in enumerate([1, 0, 1, 1]):
        buffer.add(group_id, rows_of(group_id, 2, version))
    assert buffer.status().live == 6 and buffer.status().expired == 2
    buffer.set_version(2)
    assert buffer.status().live == 4
    for group_id in (4, 5):
        buffer.add(group_id, rows_of(group_id, 2, version=2))
    assert sorted(flat(draw_all(buffer))) == [300, 301, 400, 401, 500, 501]


@samplers
@pytest.mark.parametrize("max_staleness", [0, 2])
@pytest.mark.parametrize("capacity", [9, 1000])
def test_a_restored_buffer_goes_on_as_if_nothing_had_happened(sampler, max_staleness, capacity):
    run = config(sampler, max_staleness, epochs=3, batch_size=4, capacity=capacity)
    straight = filled(run, groups=6)
    straight.draw(0)
    straight.draw(1)
    straight.add(8, rows_of(8, 3))
    plain, rows = straight.state()
    resumed = RolloutBuffer(run)
    resumed.restore(json.loads(json.dumps(plain)), unflatten_rows(flatten_rows(rows)))
    assert resumed.status() == straight.status()
    futures = []
    for buffer in (straight, resumed):
        future = [names(buffer.draw(2)), buffer.missing(range(10))]
        for group_id in (7, 6):
            buffer.add(group_id, rows_of(group_id, 2, reward=0.5))
        futures.append([*future, *draw_all(buffer, first_step=3), buffer.status()])
    assert futures[0] == futures[1]


def test_rows_leave_the_buffer_as_they_came():
    given_rows = rows_of(0, 3)
    leaves = list(given_rows[0].keys(True, True))
    for sampler in Sampler:
        buffer = RolloutBuffer(config(sampler, batch_size=3))
        buffer.add(0, given_rows)
        extra = {WEIGHT} if sampler is Sampler.prioritized else set()
        for row in buffer.draw(0):
            assert set(row.keys(True, True)) == {*leaves, *extra}
            assert (row.select(*leaves) == given_rows[names([row])[0]]).all()
        assert all(set(row.keys(True, True)) == {*leaves} for row in [*buffer.state()[1], *given_rows])


def test_a_prioritized_buffer_prefers_rewards_and_weighs_them_down():
    run = config(Sampler.prioritized, max_staleness=1, epochs=200, batch_size=10)
    buffer = RolloutBuffer(run)
    buffer.add(0, rows_of(0, 1, reward=0.0))
    buffer.add(1, rows_of(1, 1, reward=1.0))
    drawn = [row for step in range(40) for row in buffer.draw(step)]
    reads = Counter(names(drawn))
    ratio = ((1 + PRIORITY_FLOOR) / PRIORITY_FLOOR) ** run.buffer.priority_alpha
    assert ratio / 2 < reads[100] / reads[0] < ratio * 2
    weights = {int(row[FINGERPRINT]): float(row[WEIGHT]) for row in drawn}
    assert weights[100] / weights[0] == pytest.approx(ratio**-run.buffer.priority_beta, rel=1e-4)


def shares(run: RunConfig, *groups: list[TensorDict], version: int = 0) -> list[float]:
    """How often the row of each group is drawn, relative to the first."""
    run.mode.max_staleness, run.buffer.sampler, run.epochs = 9, Sampler.prioritized, 400
    buffer = RolloutBuffer(run)
    for group_id, rows in enumerate(groups):
        buffer.add(group_id, rows)
    buffer.set_version(version)
    reads = Counter(names(row for step in range(40) for row in buffer.draw(step)))
    return [reads[100 * group_id] / reads[0] for group_id in range(len(groups))]


def test_the_priority_may_be_how_hard_the_prompt_was():
    run = config(batch_size=10)
    run.buffer.priority, run.buffer.priority_alpha = Priority.difficulty, 1.0
    _, harder = shares(run, rows_of(0, 1, pass_rate=0.75), rows_of(1, 1, pass_rate=0.25))
    assert 2 < harder < 4.5


def test_the_priority_may_be_how_young_the_sample_is_and_falls_as_it_ages():
    run = config(batch_size=10)
    run.buffer.priority, run.buffer.priority_alpha = Priority.recency, 1.0
    _, younger = shares(run, rows_of(0, 1, version=0), rows_of(1, 1, version=3), version=3)
    assert 2.7 < younger < 5.5


@pytest.mark.parametrize("priority", Priority)
def test_importance_weights_leave_the_expected_gradient_unbiased(priority):
    run = config(Sampler.prioritized, max_staleness=9, epochs=3000, batch_size=100)
    run.buffer.priority, run.buffer.priority_alpha, run.buffer.priority_beta = priority, 0.7, 1.0
    buffer = RolloutBuffer(run)
    for i in range(6):
        buffer.add(i, rows_of(i, 1, version=i % 3, reward=0.2 + 0.1 * i, pass_rate=0.9 - 0.1 * i))
    buffer.set_version(3)
    gradients = {100 * i: float((i - 2) ** 2) for i in range(6)}
    drawn = [row for step in range(120) for row in buffer.draw(step)]
    estimates = torch.tensor([float(row[WEIGHT]) * gradients[int(row[FINGERPRINT])] for row in drawn])
    error = estimates.std() / len(drawn) ** 0.5
    assert abs(estimates.mean() - fmean(gradients.values())) < 4 * error
    unweighted = fmean(gradients[int(row[FINGERPRINT])] for row in drawn)
    assert abs(unweighted - fmean(gradients.values())) > 4 * error


@given(leaves=st.lists(st.floats(0.125, 4.0, width=32), min_size=1, max_size=20), share=st.floats(0, 0.999))
def test_flat_trees_answer_as_segment_trees_do(leaves, share):
    index = torch.arange(len(leaves))
    sums, minima = SumTree(), MinTree()
    for tree in (sums, minima):
        tree[index.flip(0)] = torch.tensor(leaves).flip(0)
        assert tree[index].tolist() == leaves
    assert sums.query(0, len(leaves)) == pytest.approx(sum(leaves))
    assert minima.query(0, len(leaves)) == min(leaves)
    mass = share * sum(leaves)
    found = int(sums.scan_lower_bound(torch.tensor([mass], dtype=torch.float64)))
    assert sum(leaves[:found]) <= mass + 1e-9 and mass - 1e-9 <= sum(leaves[: found + 1])


def test_a_leaf_without_mass_is_never_found():
    tree = SumTree()
    tree[torch.arange(3)] = torch.tensor([0.0, 2.0, 0.0])
    assert tree.scan_lower_bound(torch.tensor([0.0, 1.9])).tolist() == [1, 1]


def test_accumulated_rows_never_expire_and_are_read_again_in_every_iteration():
    run = config(epochs=2, batch_size=2)
    run.algorithm.accumulate = True
    buffer, step = RolloutBuffer(run), 0
    for iteration in range(3):
        buffer.add(iteration, rows_of(iteration, 2, version=iteration))
        drawn = []
        while buffer.reads_left():
            drawn += [int(row["group_id"]) for row in buffer.draw(step)]
            step += 1
        assert sorted(drawn) == sorted([*range(iteration + 1)] * 4)
        for _ in range(2):  # the second time, a resumed run tells it where it stands
            buffer.set_version(iteration + 1)
    assert buffer.status().expired == 0
    assert buffer.status().written == 2 + 4 + 6 + 6


def test_an_adaptive_batch_follows_the_rows_that_are_held():
    run = config(epochs=1)
    run.adaptive = AdaptiveConfig(True, [AdaptiveRow(3, 1, 0.1), AdaptiveRow(None, 3, 0.1)])
    buffer = RolloutBuffer(run)
    buffer.add(0, rows_of(0, 3))
    assert buffer.steps_left() == 3 and len(buffer.draw(0)) == 1
    buffer = RolloutBuffer(run)
    buffer.add(0, rows_of(0, 4))
    assert buffer.steps_left() == 2 and [len(buffer.draw(step)) for step in range(2)] == [3, 1]
