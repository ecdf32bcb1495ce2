"""From ticket to buffer, with a fake engine, sink and reference."""

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from expert_iteration.archive import Archive
from expert_iteration.batching import REFERENCE, REWARD
from expert_iteration.collector import Collector
from expert_iteration.config import (
    AlgorithmConfig,
    BufferConfig,
    ModelConfig,
    RewardConfig,
    RunConfig,
    SamplingConfig,
    SelectionConfig,
    TaskConfig,
)
from expert_iteration.sampling import Ask, visit_seed
from expert_iteration.tokenizer import load_tokenizer, resolve_model
from expert_iteration.types import Finish, Prompt, Rollout, Ticket

ANSWERS = [" 1+1=2 </think> <answer> 2 </answer>", " hm </think> <answer> 3 </answer>", "2"]


def run_config(**changes) -> RunConfig:
    values = {
        "prompts_per_iteration": 4,
        "rollouts_per_prompt": 3,
        "batch_size": 2,
        "epochs": 1,
        "iterations": 1,
        "task": TaskConfig(name="demo", max_tokens=8),
        "algorithm": AlgorithmConfig(name="expert_iteration"),
        "sampling": SamplingConfig(max_tokens=8),
        "buffer": BufferConfig(capacity=100),
        "model": ModelConfig(path="demo", max_length=64),
    }
    return resolve_model(RunConfig(**values | changes))


class FakeEngine:
    version = 5
    unfinished = 0

    def __init__(self):
        self.requests = []
        self.closed = False

    def submit(self, requests):
        self.requests += requests
        futures = []
        for request in requests:
            future = Future()
            future.set_result(
                tuple(
                    Rollout(i, (7, 8), (-0.1, -0.2), ANSWERS[i % 3], Finish.STOP, 5, 5)
                    for i in range(request.n)
                )
            )
            futures.append(future)
        return futures

    def close(self):
        self.closed = True


class FakeReference:
    def __init__(self):
        self.asked = 0

    def log_probs(self, rows):
        self.asked += len(rows)
        return [torch.zeros(len(row["tokens", "full"])) for row in rows]


class FakeSink:
    def __init__(self):
        self.groups, self.rows, self.wasted = [], [], []

    def add(self, groups, wasted=()):
        self.wasted += wasted
        for group, rows in groups:
            self.groups.append(group)
            self.rows += rows


def tickets(count):
    return [
        Ticket(i, 1, Prompt(i, "1+1?", "2", "1+1?", (1, 2, 3), "r1_zero", demonstration=" 2 </think>"))
        for i in range(count)
    ]


def collect(config, count=4, reference=None):
    engine, sink = FakeEngine(), FakeSink()
    collector = Collector(config, engine, load_tokenizer(config.model), sink, reference)
    collector.collect(tickets(count))
    collector.close()
    assert engine.closed
    return engine, sink


def test_every_group_arrives_once_with_a_verdict_for_each_answer():
    _, sink = collect(run_config())
    assert sorted(group.ticket.group_id for group in sink.groups) == [0, 1, 2, 3]
    for group in sink.groups:
        assert [verdict.success for verdict in group.verdicts] == [True, False, False]
        assert [verdict.format_reward for verdict in group.verdicts] == [1, 1, 0]
    assert len(sink.rows) == 12


def test_shaped_rewards_reach_the_rows_beside_answer_and_format():
    _, sink = collect(run_config(reward=RewardConfig(format=0.25)), count=1)
    [group] = sink.groups
    assert group.rewards == (1.0, 0.75 * 0.25, 0.0)
    assert [verdict.answer_reward for verdict in group.verdicts] == [1, 0, 0]
    assert [float(row[REWARD]) for row in sink.rows] == list(group.rewards)


def test_only_answers_that_may_be_kept_are_scored_by_the_reference():
    reference = FakeReference()
    _, sink = collect(run_config(), reference=reference)
    assert reference.asked == 4
    assert [REFERENCE in row.keys(include_nested=True) for row in sink.rows[:3]] == [True, False, False]


def test_with_the_gate_lowered_all_answers_are_scored():
    reference = FakeReference()
    collect(run_config(selection=SelectionConfig(min_reward=0.0)), reference=reference)
    assert reference.asked == 12


def test_seeds_differ_between_visits_and_repeat_between_runs():
    first, _ = collect(run_config())
    again, _ = collect(run_config())
    seeds = [request.seed for request in first.requests]
    assert seeds == [request.seed for request in again.requests]
    assert len(set(seeds)) == 4
    other, _ = collect(run_config(seed=1))
    assert not set(seeds) & {request.seed for request in other.requests}
    ticket = tickets(1)[0]
    again = Ask(Ticket(9, 2, ticket.prompt))
    assert visit_seed(0, Ask(ticket)) != visit_seed(0, again), "a second visit is a new draw"


def test_demonstrations_are_not_sampled_and_end_with_the_end_of_sequence():
    config = run_config(algorithm=AlgorithmConfig(name="sft"))
    engine, sink = collect(config)
    assert engine.requests == []
    assert [len(group.rollouts) for group in sink.groups] == [1] * 4
    tokens = sink.groups[0].rollouts[0].token_ids
    assert tokens[-1] == load_tokenizer(config.model).eos_token_id


def test_an_archive_counts_logs_and_remembers_what_arrived(tmp_path):
    config = run_config(selection=SelectionConfig(top_k=1))
    archive = Archive(config, tmp_path)
    collector = Collector(config, FakeEngine(), load_tokenizer(config.model), archive, None)
    collector.collect(tickets(3))
    collector.close()
    seen = archive.snapshot()
    assert (seen.totals["groups"], seen.live, seen.uses_left, seen.steps_left) == (3, 3, 3, 2)
    assert seen.totals["rollouts"] == 9
    assert seen.totals["kept"] == seen.totals["correct"] == 3
    assert seen.totals["reward_millionths"] == 3_000_000
    assert archive.missing(range(6)) == [3, 4, 5]
    (tmp_path / "saved").mkdir()
    archive.draw(0, 0, 1)
    archive.save(tmp_path / "saved")
    restored = Archive(config, tmp_path)
    restored.load(tmp_path / "saved")
    assert restored.snapshot() == archive.snapshot()
    assert restored.missing(range(6)) == [3, 4, 5]
    assert restored.book(1) == archive.book(1)
    with pytest.raises(AssertionError, match="twice"):
        restored.add([group_again()])


def test_what_is_saved_does_not_depend_on_the_order_of_arrival(tmp_path):
    config, (first, second) = run_config(), tickets(2)
    unsolvable = replace(second, prompt=replace(second.prompt, gold="9"))
    saved = []
    for order in ([first, unsolvable], [unsolvable, first]):
        folder = tmp_path / f"begins_with_{order[0].group_id}"
        archive = Archive(config, folder)
        collector = Collector(config, FakeEngine(), load_tokenizer(config.model), archive, None)
        for ticket in order:
            collector.collect([ticket])
        collector.close()
        archive.save(folder)
        saved.append({file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()})
    assert saved[0].keys() >= {"buffer.json", "buffer.safetensors", "ledger.json"}
    assert saved[0] == saved[1]


def test_groups_may_come_from_several_threads_at_once(tmp_path):
    config = run_config()
    archive, scored = Archive(config, tmp_path), collected(config, 60)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            adding = [threads.submit(archive.add, [one]) for one in scored]
        for future in adding:
            future.result()
    finally:
        sys.setswitchinterval(interval)
    assert archive.snapshot().totals["kept"] == archive.snapshot().live == 60


def test_what_a_killed_run_wrote_after_its_checkpoint_is_forgotten(tmp_path):
    config = run_config()
    archive = Archive(config, tmp_path)
    collector = Collector(config, FakeEngine(), load_tokenizer(config.model), archive, None)
    collector.collect(tickets(2))
    archive.save(tmp_path)
    log = tmp_path / "rollouts" / "iteration_0001.jsonl"
    before = log.read_text()
    collector.collect(tickets(4)[2:])
    collector.close()
    with log.open("a") as file:
        file.write('{"group_id": 0, "to')
    Archive(config, tmp_path).load(tmp_path)
    assert log.read_text() == before


def test_a_wasted_visit_is_booked_once_however_often_its_order_is_given(tmp_path):
    config = run_config()
    archive, (group, rows) = Archive(config, tmp_path), group_again()
    archive.add([], wasted=[group])
    archive.save(tmp_path)
    for again in (archive, Archive(config, tmp_path)):
        if again is not archive:
            again.load(tmp_path)
        again.add([], wasted=[group])
        assert again.book(1)["refilled"] == 1
    archive.add([(group, rows)])
    assert archive.book(1)["groups"] == 1


def group_again():
    return collected(run_config(), 1)[0]


def collected(config, count):
    """Groups with the rows of their answers, as a collector hands them over."""
    sink = FakeSink()
    collector = Collector(config, FakeEngine(), load_tokenizer(config.model), sink, None)
    collector.collect(tickets(count))
    collector.close()
    rows = iter(sink.rows)
    return [(group, [next(rows) for _ in group.rollouts]) for group in sink.groups]
