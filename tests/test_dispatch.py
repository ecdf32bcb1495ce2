"""Portions of one queue: no collector idles while work is left, and the laws hold however many there are."""

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expert_iteration.actors.dispatch import Dispatch, dispatch_of
from expert_iteration.config import (
    AlgorithmConfig,
    InferPlacement,
    ModeConfig,
    PlacementConfig,
    RunConfig,
    SelectionConfig,
)
from expert_iteration.scheduler import Backlog, Laws, Progress, Scheduler


def run_config(replicas: int = 2, max_num_seqs: int = 256, **changes) -> RunConfig:
    values = {
        "iterations": 1,
        "prompts_per_iteration": 512,
        "rollouts_per_prompt": 4,
        "batch_size": 16,
        "algorithm": AlgorithmConfig(name="expert_iteration"),
        "selection": SelectionConfig(top_k=2),
        "placement": PlacementConfig(infer=InferPlacement(replicas=replicas, max_num_seqs=max_num_seqs)),
    }
    return RunConfig(**values | changes)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_groups_are_cut_into_portions_in_order():
    dispatch = Dispatch(collectors=2, seats=4, portion=3)
    assert dispatch.portions(list(range(7))) == [[0, 1, 2], [3, 4, 5], [6]]


def test_the_collector_with_most_free_seats_is_chosen():
    async def act():
        dispatch = Dispatch(collectors=3, seats=8, portion=4)
        async with AsyncExitStack() as open_:
            return [await open_.enter_async_context(dispatch.seated(groups)) for groups in (4, 2, 1, 4)]

    first, second, third, again = asyncio.run(act())
    assert {first, second, third} == {0, 1, 2}
    assert again == third


def test_no_collector_holds_more_than_its_seats_and_who_waits_longest_comes_first():
    async def act():
        dispatch, held, order = Dispatch(collectors=2, seats=5, portion=2), Counter(), []
        most = Counter()

        async def work(number):
            async with dispatch.seated(2) as collector:
                order.append(number)
                held[collector] += 2
                most[collector] = max(most[collector], held[collector])
                await asyncio.sleep(0.001 * (number % 3))
                held[collector] -= 2

        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(work(number))
        return most, order

    most, order = asyncio.run(act())
    assert set(most.values()) == {4}
    assert order == list(range(20))


def test_seats_are_given_back_when_work_fails_or_is_cancelled():
    async def act():
        dispatch = Dispatch(collectors=1, seats=1, portion=1)
        with pytest.raises(KeyError):
            async with dispatch.seated(1):
                raise KeyError
        async with dispatch.seated(1):
            waiting = asyncio.create_task(dispatch.seated(1).__aenter__())
            await settle()
            waiting.cancel()
        async with asyncio.timeout(5), dispatch.seated(1):
            return "seated"

    assert asyncio.run(act()) == "seated"


def test_a_collector_that_is_lost_draws_nothing_from_the_queue_until_it_is_back():
    async def act():
        dispatch, served = Dispatch(collectors=2, seats=2, portion=1), Counter()
        back = asyncio.Event()

        async def work():
            async with dispatch.seated(1) as collector:
                if collector == 0:
                    await back.wait()
                await asyncio.sleep(0)
                served[collector] += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(work())
            while served[1] < 18:
                await asyncio.sleep(0)
            assert served[0] == 0
            back.set()
        return served

    assert asyncio.run(act()) == {0: 2, 1: 18}


@pytest.mark.parametrize("replicas", [2, 3, 8])
@pytest.mark.parametrize(("answers", "at_once"), [(1, 256), (4, 256), (8, 100), (16, 4), (3, 1)])
def test_every_collector_has_seats_that_fill_its_engine_and_some_to_spare(replicas, answers, at_once):
    config = run_config(replicas, at_once, rollouts_per_prompt=answers)
    dispatch = dispatch_of(config)
    portion = len(dispatch.portions(range(512))[0])
    assert dispatch._seats * answers > at_once
    assert (dispatch._seats - portion) * answers >= at_once, "full while one portion is on its way"
    assert dispatch._seats / portion <= 12, "each portion is a call that the collector serves"


def test_a_single_collector_is_given_whole_orders():
    assert len(dispatch_of(run_config(replicas=1)).portions(range(512))) == 1
    small = ModeConfig(max_staleness=2, publish_every=64, prompts_per_request=32)
    assert len(dispatch_of(run_config(replicas=1, mode=small)).portions(range(32))) == 1


@dataclass
class Replicas:
    """Engines that push at their own times and sample what they are given at random speed."""

    laws: Laws
    dispatch: Dispatch
    random: random.Random
    pause: str
    versions: list[int] = field(default_factory=list)
    pushing: bool = False
    under_way: Counter[int] = field(default_factory=Counter)
    kept: list[tuple[int, int]] = field(default_factory=list)
    """(oldest version of its tokens, uses left) of each group in the buffer."""
    consumed: int = 0
    ages: list[int] = field(default_factory=list)
    visited: Counter[int] = field(default_factory=Counter)

    async def collect(self, group_ids):
        async with asyncio.TaskGroup() as tasks:
            for portion in self.dispatch.portions(group_ids):
                tasks.create_task(self.serve(portion))

    async def serve(self, group_ids):
        async with self.dispatch.seated(len(group_ids)) as engine:
            while self.pushing:
                await asyncio.sleep(0)
            sampled = self.versions[engine]
            self.under_way[engine] += 1
            for _ in range(self.random.randrange(6)):
                await asyncio.sleep(0)
                while self.pushing and self.pause != "wait":
                    await asyncio.sleep(0)
                if self.pause == "abort":
                    sampled = self.versions[engine]
            self.under_way[engine] -= 1
        for group_id in group_ids:
            self.visited[group_id] += 1
            self.kept.append((sampled, self.random.randint(0, self.laws.uses_per_group)))

    async def publish(self, version):
        self.pushing = True
        while self.pause == "wait" and self.under_way.total():
            await asyncio.sleep(0)
        for engine in self.random.sample(range(len(self.versions)), len(self.versions)):
            await asyncio.sleep(0)
            self.versions[engine] = version
        self.pushing = False

    async def backlog(self):
        left = sum(uses for _, uses in self.kept)
        return Backlog(left, -(-left // self.laws.batch_size), self.consumed)

    async def learn(self, steps, _):
        await asyncio.sleep(0)
        for _ in range(steps * self.laws.batch_size):
            self.kept = [(version, uses) for version, uses in self.kept if uses]
            if self.kept:
                version, uses = self.kept.pop(0)
                self.ages.append(max(self.versions) - version)
                self.consumed += 1
                self.kept.insert(0, (version, uses - 1))

    async def finish_iteration(self, _): ...


@settings(max_examples=150, deadline=None)
@given(
    replicas=st.integers(1, 4),
    portion=st.integers(1, 3),
    pause=st.sampled_from(["wait", "abort", "keep"]),
    staleness=st.integers(0, 3),
    seed=st.integers(0, 10_000),
)
def test_no_sample_is_too_old_and_no_group_is_lost_however_many_engines_there_are(
    replicas, portion, pause, staleness, seed
):
    laws = Laws(
        iterations=3,
        groups_per_iteration=12,
        batch_size=2,
        uses_per_group=2,
        max_staleness=staleness,
        publish_every=6 if staleness else None,
        groups_per_request=4 if staleness else None,
        replicas=replicas,
    )
    stages = Replicas(
        laws,
        Dispatch(replicas, portion + seed % 4, portion),
        random.Random(seed),
        pause,
        versions=[0] * replicas,
    )
    scheduler = Scheduler(laws, stages, Progress(), range(laws.groups))
    asyncio.run(asyncio.wait_for(scheduler.run(), timeout=20))
    assert stages.visited == Counter(range(laws.groups))
    assert max(stages.ages, default=0) <= laws.max_staleness
    assert sum(uses for _, uses in stages.kept) == 0
