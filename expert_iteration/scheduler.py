"""When to collect, learn and publish. Synchronous and asynchronous training are one loop here.

Two laws decide, and nothing else:

1. the learner may take a step only while samples are left to use (reads < epochs x writes);
2. a collector may start a group only if the policy version that will train on it is at most
   `max_staleness` ahead of the version that samples it.

With a staleness of 0 the second law makes the loop lock-step: collect, learn, publish. The
scheduler knows counts, no tensors; tests drive it with fakes.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from math import ceil
from typing import Protocol

SLICE = 16
"""Optimizer steps ordered at once, at most: how often the loop looks up."""


@dataclass(frozen=True)
class Laws:
    """The numbers that the two laws are made of."""

    iterations: int
    groups_per_iteration: int
    batch_size: int
    uses_per_group: int
    """Most uses that one group can bring: kept at most x epochs."""
    max_staleness: int = 0
    publish_every: int | None = None
    """Optimizer steps between pushes; None: once, at the end of each iteration."""
    min_uses: int = 1
    """Uses that must be there before the learner starts."""
    groups_per_request: int | None = None
    """Groups ordered from a collector at once; None: `groups_per_iteration / replicas`."""
    replicas: int = 1

    @property
    def groups(self) -> int:
        return self.iterations * self.groups_per_iteration

    @property
    def request_size(self) -> int:
        return self.groups_per_request or ceil(self.groups_per_iteration / self.replicas)

    @property
    def steps_held(self) -> int:
        """Optimizer steps that may lie in the buffer before the learner can move.

        Above `max_staleness * publish_every` the two laws could wait for each other for ever.
        """
        waiting = max(self.min_uses, self.batch_size) - 1
        return ceil((waiting + self.request_size * self.uses_per_group) / self.batch_size)

    def iteration_of(self, group_id: int) -> int:
        return group_id // self.groups_per_iteration

    def requests(self, group_ids: Iterable[int]) -> Iterator[list[int]]:
        """Cut `group_ids` into orders for the collectors; none spans two iterations."""
        for _, iteration in groupby(group_ids, key=self.iteration_of):
            while order := list(islice(iteration, self.request_size)):
                yield order


@dataclass
class Progress:
    """Where the run stands. Saved in every checkpoint."""

    iteration: int = 0
    """Iterations that are complete."""
    version: int = 0
    """Policy version that the engines hold."""
    steps: int = 0
    """Optimizer steps taken."""
    unpublished: int = 0
    """Optimizer steps taken since the last push."""
    schedule: float = 0.0
    """Share of the run that the learning-rate schedule has behind it, in [0, 1]."""


@dataclass(frozen=True)
class Backlog:
    """What the buffer still offers the learner."""

    uses_left: int
    """Reads that are left on the samples held now."""
    steps_left: int
    """Optimizer steps that those reads make."""
    consumed: int
    """Reads done so far, and those given up because the sample grew too old."""


class Stages(Protocol):
    """What the scheduler sets in motion; local or remote, it cannot tell."""

    async def collect(self, group_ids: Sequence[int]) -> None: ...

    async def backlog(self) -> Backlog: ...

    async def learn(self, steps: int, schedule: tuple[float, float]) -> None: ...

    async def publish(self, version: int) -> None: ...

    async def finish_iteration(self, iteration: int) -> None: ...


class Stopped(Exception):
    """The run ends early, and stands between two optimizer steps; its text says why."""


class Scheduler:
    """Runs the stages under the two laws until every group was collected, learned and published."""

    def __init__(self, laws: Laws, stages: Stages, progress: Progress, missing: Sequence[int]) -> None:
        """`missing` are the groups that the buffer has not received yet, in order."""
        self.laws = laws
        self.progress = progress
        self._stages = stages
        self._missing = missing
        self._finished = laws.groups - len(missing)
        self._in_flight = 0
        self._backlog = Backlog(0, 0, 0)
        self._due: int | None = None
        self._closing = False
        self._stopping = False
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Run to the end.

        Raises:
            ExceptionGroup: holding what a stage raised, or `Stopped`.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._order_groups(tasks))
            tasks.create_task(self._learn())

    async def stop(self) -> None:
        """Ask for a `Stopped` as soon as the learner stands between two orders."""
        self._stopping = True
        await self._look_up()

    def may_collect(self, request: Sequence[int]) -> bool:
        """Law 2, with the most that the groups in flight can bring."""
        laws, progress = self.laws, self.progress
        if laws.publish_every is None:
            behind = laws.iteration_of(request[0]) - progress.version
            return behind <= laws.max_staleness and not self._closing
        ahead = self._backlog.uses_left + (self._in_flight + len(request)) * laws.uses_per_group
        steps = progress.unpublished + ceil(ahead / laws.batch_size)
        return steps // laws.publish_every <= laws.max_staleness

    def steps_allowed(self) -> int:
        """Law 1: optimizer steps that may be taken now; 0: wait for more samples."""
        left = self._backlog
        if self.laws.publish_every is None:
            return min(left.steps_left, SLICE) if self._iteration_collected() else 0
        room = min(self.laws.publish_every - self.progress.unpublished, SLICE)
        if self._finished == self.laws.groups:
            return min(left.steps_left, room)
        if left.consumed == 0 and left.uses_left < self.laws.min_uses:
            return 0
        return min(left.uses_left // self.laws.batch_size, room)

    async def _order_groups(self, tasks: asyncio.TaskGroup) -> None:
        for request in self.laws.requests(self._missing):
            await self._until(lambda request=request: self.may_collect(request))  # type: ignore[misc]
            self._in_flight += len(request)
            tasks.create_task(self._collect(request))

    async def _collect(self, request: Sequence[int]) -> None:
        await self._stages.collect(request)
        await self._look_up(finished=len(request))

    async def _learn(self) -> None:
        await self._look_up()
        while self.progress.iteration < self.laws.iterations:
            await self._until(self._has_work)
            if self._stopping:
                raise Stopped("stopped")
            if steps := self.steps_allowed():
                await self._take(steps)
            if self._push_due():
                await self._publish()
            if self._iteration_learned():
                await self._finish_iteration()

    async def _take(self, steps: int) -> None:
        progress = self.progress
        finished = self._finished / self.laws.groups
        share = steps / max(self._backlog.steps_left, steps)
        reached = progress.schedule + max(finished - progress.schedule, 0.0) * share
        await self._stages.learn(steps, (progress.schedule, reached))
        progress.schedule = reached
        progress.steps += steps
        progress.unpublished += steps
        await self._look_up()

    async def _publish(self) -> None:
        await self._stages.publish(self.progress.version + 1)
        self.progress.version += 1
        self.progress.unpublished = 0
        await self._look_up()

    async def _finish_iteration(self) -> None:
        self._closing = True
        last = self.progress.iteration + 1 == self.laws.iterations
        # an asynchronous push out of turn would make samples older than law 2 foresaw
        if self.laws.publish_every is None or (last and self.progress.unpublished):
            await self._publish()
        self.progress.iteration += 1
        self._due = None
        await self._stages.finish_iteration(self.progress.iteration)
        self._closing = False
        await self._look_up()

    def _has_work(self) -> bool:
        return self._stopping or self.steps_allowed() > 0 or self._iteration_learned()

    def _push_due(self) -> bool:
        every = self.laws.publish_every
        return every is not None and self.progress.unpublished >= every

    def _iteration_collected(self) -> bool:
        return self._finished >= (self.progress.iteration + 1) * self.laws.groups_per_iteration

    def _iteration_learned(self) -> bool:
        """All that the iteration brought was used: what was there when its last group came in."""
        if not self._iteration_collected():
            return False
        if self._due is None:
            self._due = self._backlog.consumed + self._backlog.uses_left
        return self._backlog.consumed >= self._due

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _look_up(self, finished: int = 0) -> None:
        """Read the backlog anew, book `finished` groups with it, and wake whoever waits."""
        async with self._changed:
            self._backlog = await self._stages.backlog()
            self._in_flight -= finished
            self._finished += finished
            self._changed.notify_all()
