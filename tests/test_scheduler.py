"""The two laws, driven with fake stages."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from expert_iteration.scheduler import Backlog, Laws, Progress, Scheduler, Stopped


@dataclass
class Fake:
    """A buffer, an engine and a learner that are only counters, with random delays."""

    laws: Laws
    epochs: int = 1
    seed: int = 0
    least_kept: int = 0
    version: int = 0
    written: int = 0
    reads: int = 0
    steps: int = 0
    events: list[str] = field(default_factory=list)
    started_at: dict[int, int] = field(default_factory=dict)
    staleness_when_read: list[int] = field(default_factory=list)
    schedules: list[tuple[float, float]] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)

    def __post_init__(self):
        self.random = random.Random(self.seed)

    async def pause(self):
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)

    async def collect(self, group_ids):
        self.events.append(f"collect {group_ids[0]}")
        for group_id in group_ids:
            assert group_id not in self.started_at, "a group is visited once"
            self.started_at[group_id] = self.version
        await self.pause()
        for group_id in group_ids:
            kept = self.random.randint(self.least_kept, self.laws.uses_per_group // self.epochs)
            self.written += kept
            self.queue += [group_id] * (kept * self.epochs)

    async def backlog(self):
        left = self.written * self.epochs - self.reads
        return Backlog(left, -(-left // self.laws.batch_size), self.reads)

    async def learn(self, steps, schedule):
        self.events.append(f"learn {self.steps}+{steps}")
        self.schedules.append(schedule)
        await self.pause()
        for _ in range(steps):
            batch = self.queue[: self.laws.batch_size]
            assert batch, "law 1: there is something to read"
            del self.queue[: len(batch)]
            self.reads += len(batch)
            self.staleness_when_read += [self.version - self.started_at[group_id] for group_id in batch]
            self.steps += 1

    async def publish(self, version):
        assert version == self.version + 1, "versions are pushed one by one"
        await self.pause()
        self.version = version
        self.events.append(f"publish {version}")

    async def finish_iteration(self, iteration):
        self.events.append(f"finish {iteration}")


def run(fake, progress=None, missing=None):
    scheduler = Scheduler(
        fake.laws, fake, progress or Progress(), range(fake.laws.groups) if missing is None else missing
    )
    asyncio.run(asyncio.wait_for(scheduler.run(), timeout=5))
    return scheduler


def test_zero_staleness_is_lock_step():
    fake = Fake(Laws(iterations=2, groups_per_iteration=4, batch_size=100, uses_per_group=8), seed=3)
    run(fake)
    assert fake.events == [
        *("collect 0", "learn 0+1", "publish 1", "finish 1"),
        *("collect 4", "learn 1+1", "publish 2", "finish 2"),
    ]
    assert set(fake.staleness_when_read) == {0}


@st.composite
def asynchronous(draw):
    laws = Laws(
        iterations=draw(st.integers(1, 3)),
        groups_per_iteration=draw(st.integers(1, 20)),
        batch_size=draw(st.integers(1, 8)),
        uses_per_group=draw(st.integers(1, 4)),
        max_staleness=draw(st.integers(1, 4)),
        publish_every=draw(st.integers(1, 5)),
        min_uses=draw(st.integers(1, 10)),
        groups_per_request=draw(st.integers(1, 6)),
    )
    assume(laws.steps_held <= laws.max_staleness * (laws.publish_every or 1))
    return laws


@settings(max_examples=200, deadline=None)
@given(laws=asynchronous(), seed=st.integers(0, 10**6))
def test_asynchronous_runs_end_and_never_read_what_is_too_stale(laws, seed):
    fake = Fake(laws, seed=seed)
    scheduler = run(fake)
    assert sorted(fake.started_at) == list(range(laws.groups)), "every group is visited"
    assert fake.reads == fake.written, "law 1 is reached, and never broken"
    assert max(fake.staleness_when_read, default=0) <= laws.max_staleness, "law 2"
    assert scheduler.progress.iteration == laws.iterations
    assert scheduler.progress.steps == fake.steps


@settings(max_examples=100, deadline=None)
@given(
    iterations=st.integers(1, 4),
    groups=st.integers(1, 12),
    batch=st.integers(1, 9),
    replicas=st.integers(1, 3),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_synchronous_runs_use_every_sample_epochs_times(iterations, groups, batch, replicas, epochs, seed):
    laws = Laws(iterations, groups, batch, uses_per_group=4 * epochs, replicas=replicas)
    fake = Fake(laws, epochs=epochs, seed=seed)
    run(fake)
    assert fake.reads == fake.written * epochs
    assert set(fake.staleness_when_read) <= {0}
    assert fake.version == iterations


@settings(max_examples=100, deadline=None)
@given(laws=asynchronous(), seed=st.integers(0, 10**6))
def test_the_schedule_never_goes_back_and_ends_with_the_last_step(laws, seed):
    fake = Fake(laws, seed=seed, least_kept=1)
    run(fake)
    points = [point for pair in fake.schedules for point in pair]
    assert points == sorted(points)
    assert points[-1] == pytest.approx(1.0)


def test_a_synchronous_schedule_is_a_straight_line_within_an_iteration():
    laws = Laws(iterations=1, groups_per_iteration=50, batch_size=1, uses_per_group=4)
    fake = Fake(laws, seed=1)
    run(fake)
    assert len(fake.schedules) > 3
    slopes = [(end - start) for start, end in fake.schedules[:-1]]
    assert slopes == pytest.approx([slopes[0]] * len(slopes))


def test_an_asynchronous_run_overlaps_collecting_and_learning():
    laws = Laws(1, 200, 2, uses_per_group=2, max_staleness=2, publish_every=4, groups_per_request=2)
    fake = Fake(laws, seed=0)
    run(fake)
    first_learn = next(i for i, event in enumerate(fake.events) if event.startswith("learn"))
    last_collect = max(i for i, event in enumerate(fake.events) if event.startswith("collect"))
    assert first_learn < last_collect


def test_a_failing_stage_ends_the_run_with_its_own_error():
    class Broken(Fake):
        async def collect(self, group_ids):
            raise RuntimeError(f"engine died at {group_ids[0]}")

    with pytest.raises(ExceptionGroup) as error:
        run(Broken(Laws(1, 4, 1, 2)))
    assert error.group_contains(RuntimeError, match="engine died")


def test_a_stop_is_heard_between_two_orders_and_the_run_goes_on_later():
    laws = Laws(iterations=2, groups_per_iteration=6, batch_size=1, uses_per_group=4)

    class Stopping(Fake):
        async def finish_iteration(self, iteration):
            assert iteration == 1
            await scheduler.stop()

    fake = Stopping(laws, seed=5)
    progress = Progress()
    scheduler = Scheduler(laws, fake, progress, range(laws.groups))
    with pytest.raises(ExceptionGroup) as error:
        asyncio.run(scheduler.run())
    assert error.group_contains(Stopped)
    assert progress.iteration == 1
    resumed = Fake(laws, seed=9, version=fake.version, steps=fake.steps)
    run(resumed, progress, missing=range(6, 12))
    assert sorted(resumed.started_at) == list(range(6, 12))
    assert progress.iteration == 2


def test_requests_never_span_two_iterations():
    laws = Laws(iterations=3, groups_per_iteration=5, batch_size=1, uses_per_group=1, groups_per_request=4)
    assert list(laws.requests(range(3, 12))) == [[3, 4], [5, 6, 7, 8], [9], [10, 11]]
