"""Portions of one queue: no collector idles while work is left, and the laws hold however many there are."""

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expert_iteration.actors.workers import CONCURRENT_CALLS
from expert_iteration.config import (
    AlgorithmConfig,
    InferPlacement,
    ModeConfig,
    PlacementConfig,
    RunConfig,
    SelectionConfig,
)
from expert_iteration.dispatch import Dispatch, dispatch_of
from expert_iteration.room import MOST_ORDERS, Room
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


class Rooms:
    """Collectors that have room when they are told to; `asked` counts how often each was."""

    def __init__(self, *free):
        self.there = [asyncio.Event() for _ in free]
        for event, is_free in zip(self.there, free, strict=True):
            if is_free:
                event.set()
        self.asked = Counter()

    async def __call__(self, collector):
        self.asked[collector] += 1
        await self.there[collector].wait()


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def test_groups_are_cut_into_portions_in_order():
    dispatch = Dispatch(2, portion=3, room=None)
    assert dispatch.portions(list(range(7))) == [[0, 1, 2], [3, 4, 5], [6]]


def test_an_evaluation_is_cut_by_answers_too():
    shared = dispatch_of(run_config(replicas=2, max_num_seqs=64, rollouts_per_prompt=4), None)
    assert {len(portion) for portion in shared.questions(range(400))} == {8}
    assert {len(portion) for portion in shared.portions(range(400))} == {2}
    assert len(dispatch_of(run_config(replicas=1), None).questions(range(5_000))) == 1
    assert shared.questions([]) == dispatch_of(run_config(replicas=1), None).questions([]) == []


@pytest.mark.parametrize("replicas", [2, 7, 60, 500])
def test_there_are_portions_for_every_engine(replicas):
    """However many there are, and however few groups: 512 of them here."""
    dispatch = dispatch_of(run_config(replicas), None)
    for portions in (dispatch.portions(range(512)), dispatch.questions(range(512))):
        assert len(portions) >= min(512, 4 * replicas)


def test_of_the_collectors_with_room_the_one_with_the_fewest_groups_is_chosen():
    async def act():
        dispatch = Dispatch(3, 4, Rooms(True, True, True))
        async with AsyncExitStack() as open_:
            return [await open_.enter_async_context(dispatch.placed(groups)) for groups in (4, 2, 1, 4)]

    first, second, third, again = asyncio.run(act())
    assert {first, second, third} == {0, 1, 2}
    assert again == third


def test_a_collector_without_room_gets_nothing_and_is_asked_once():
    async def act():
        rooms, placed = Rooms(False, True), []
        dispatch = Dispatch(2, 1, rooms)
        for _ in range(5):
            async with dispatch.placed(1) as collector:
                placed.append(collector)
        rooms.there[1].clear()
        waiting = asyncio.create_task(dispatch.placed(1).__aenter__())
        await settle()
        assert not waiting.done()
        rooms.there[0].set()
        placed.append(await waiting)
        dispatch.close()
        return placed, rooms.asked

    placed, asked = asyncio.run(act())
    assert placed == [1] * 5 + [0]
    assert asked[0] == 1


def test_who_came_first_is_served_first():
    async def act():
        rooms, order = Rooms(False, False), []
        dispatch = Dispatch(2, 1, rooms)

        async def work(number):
            async with dispatch.placed(1):
                order.append(number)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(work(number))
            await settle()
            assert order == []
            rooms.there[1].set()
        dispatch.close()
        return order

    assert asyncio.run(act()) == list(range(20))


def test_an_evaluation_does_not_wait_for_all_that_was_ordered_before():
    async def act():
        rooms, order = Rooms(False, False), []
        dispatch = Dispatch(2, 1, rooms)

        async def work(kind, **line):
            async with dispatch.placed(1, **line):
                order.append(kind)
                rooms.there[1].clear()
                await asyncio.sleep(0)
                rooms.there[1].set()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(work("group"))
            for _ in range(5):
                tasks.create_task(work("question", is_evaluation=True))
            await settle()
            rooms.there[1].set()
        dispatch.close()
        return order

    order = asyncio.run(act())
    assert (order.count("group"), order.count("question")) == (20, 5)
    assert "question" not in order[12:]


def test_a_collector_that_fails_is_named_by_its_error_and_the_next_in_line_goes_on():
    async def act():
        failures = [KeyError("collector 0 is lost for good")]

        async def room(_):
            if failures:
                raise failures.pop()

        dispatch = Dispatch(2, 1, room)
        with pytest.raises(KeyError, match="collector 0"):
            async with dispatch.placed(1):
                pass
        async with asyncio.timeout(5), dispatch.placed(1) as collector:
            return collector

    assert asyncio.run(act()) in (0, 1)


def test_who_gives_up_waiting_leaves_the_line():
    async def act():
        rooms = Rooms(False, False)
        dispatch = Dispatch(2, 1, rooms)
        waiting = asyncio.create_task(dispatch.placed(1).__aenter__())
        await settle()
        waiting.cancel()
        await settle()
        rooms.there[0].set()
        async with asyncio.timeout(5), dispatch.placed(1) as collector:
            dispatch.close()
            return collector

    assert asyncio.run(act()) == 0


def test_a_single_collector_is_given_whole_orders_and_asked_for_nothing():
    assert len(dispatch_of(run_config(replicas=1), None).portions(range(512))) == 1
    small = ModeConfig(max_staleness=2, publish_every=64, prompts_per_request=32)
    dispatch = dispatch_of(run_config(replicas=1, mode=small), None)
    assert len(dispatch.portions(range(32))) == 1

    async def act():
        async with dispatch.placed(32) as collector, dispatch.placed(32) as again:
            return collector, again

    assert asyncio.run(act()) == (0, 0)


@pytest.mark.parametrize(("answers", "at_once"), [(1, 256), (4, 256), (8, 100), (16, 4), (3, 1)])
def test_a_portion_is_a_part_of_what_fills_an_engine(answers, at_once):
    [first, *_] = dispatch_of(run_config(2, at_once, rollouts_per_prompt=answers), None).portions(range(512))
    assert len(first) == 1 or len(first) * answers < 2 * at_once / 8


def test_there_is_room_until_enough_is_under_way_or_on_its_way():
    engine = Counter(unfinished=0)
    room = Room(lambda: engine["unfinished"], at_once=16)
    assert room.is_there()
    with room.taken(18) as arrived:
        assert not room.is_there(), "what is on its way counts"
        engine["unfinished"] = 18
        arrived()
        engine["unfinished"] = 17
        assert room.is_there()
    assert room.is_there()
    with suppress(KeyError), room.taken(18):
        raise KeyError
    assert room.is_there(), "an order that failed takes no room"


def test_a_collector_has_no_room_for_more_orders_than_it_can_serve():
    room = Room(lambda: 0, at_once=16)
    with ExitStack() as open_:
        for _ in range(MOST_ORDERS):
            assert room.is_there()
            open_.enter_context(room.taken(0))
        assert not room.is_there()
    assert room.is_there()
    assert MOST_ORDERS < CONCURRENT_CALLS, "a push must get through"


def test_the_wait_for_room_ends_when_the_engine_runs_out_of_work():
    left = iter([20, 19, 18, 17])
    room = Room(lambda: next(left), at_once=16)
    assert room.wait(60)
    assert list(left) == []
    assert not Room(lambda: 99, at_once=16).wait(0)


def test_a_wait_for_room_ends_when_the_collector_closes() -> None:
    room = Room(lambda: 99, at_once=16)
    with ThreadPoolExecutor(1) as waiting:
        found = waiting.submit(room.wait, 600)
        room.close()
        assert found.result(timeout=10) is False


@dataclass
class Replicas:
    """Engines that push at their own times and sample what they are given at random speed."""

    laws: Laws
    portion: int
    random: random.Random
    pause: str
    versions: list[int] = field(default_factory=list)
    pushing: list[int] = field(default_factory=list)
    under_way: Counter[int] = field(default_factory=Counter)
    kept: list[tuple[int, int]] = field(default_factory=list)
    """(oldest version of its tokens, uses left) of each group in the buffer."""
    consumed: int = 0
    ages: list[int] = field(default_factory=list)
    visited: Counter[int] = field(default_factory=Counter)

    def __post_init__(self):
        self.dispatch = Dispatch(self.laws.replicas, self.portion, self.room)

    async def room(self, engine):
        while self.under_way[engine] > 2 or self.random.random() < 0.3:
            await asyncio.sleep(0)

    async def collect(self, group_ids):
        async with asyncio.TaskGroup() as tasks:
            for portion in self.dispatch.portions(group_ids):
                tasks.create_task(self.serve(portion))

    async def serve(self, group_ids):
        async with self.dispatch.placed(len(group_ids)) as engine:
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
        self.pushing.append(version)
        while self.pause == "wait" and self.under_way.total():
            await asyncio.sleep(0)
        for engine in self.random.sample(range(len(self.versions)), len(self.versions)):
            await asyncio.sleep(0)
            self.versions[engine] = version
        self.pushing.clear()

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
    stages = Replicas(laws, portion, random.Random(seed), pause, versions=[0] * replicas)
    scheduler = Scheduler(laws, stages, Progress(), range(laws.groups))
    asyncio.run(asyncio.wait_for(scheduler.run(), timeout=20))
    assert stages.visited == Counter(range(laws.groups))
    assert max(stages.ages, default=0) <= laws.max_staleness
    assert sum(uses for _, uses in stages.kept) == 0
