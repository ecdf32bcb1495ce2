"""The actors of a run, placed, started all at once, asked with a limit, and closed."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray

from expert_iteration.actors.crew import Crew, Lost, Part
from expert_iteration.actors.ground import Ground
from expert_iteration.actors.instance import start_ray
from expert_iteration.actors.shells import ArchiveActor, CollectorActor, ReferenceActor, TrainerActor
from expert_iteration.algorithms import needs_reference
from expert_iteration.choices import Sharding
from expert_iteration.config import RunConfig
from expert_iteration.dispatch import dispatch_of
from expert_iteration.evaluation import Judged
from expert_iteration.ledger import Ledger
from expert_iteration.model_files import pinned
from expert_iteration.room import MOST_ORDERS
from expert_iteration.types import Metrics, Pace, Prompt, Snapshot, Tally, Ticket

CLOSE_LIMIT = 10.0
"""Seconds that actors have to leave by themselves."""
SAY_LIMIT = 10.0
"""Seconds that ranks have to tell what they know of an error that one of them met."""
CONCURRENT_CALLS = 64 + MOST_ORDERS
"""Calls that a collector serves side by side: orders, evaluations and the steps of a push."""


REPLACEABLE = (ReferenceActor, CollectorActor)
"""They hold nothing that the others cannot give them again."""


class RayWorkers:
    """The actors of one run, and the Ray that they live in."""

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        """Start or join Ray, and start all actors; `start` waits until they are up."""
        named = replace(config, model=pinned(config.model))
        start_ray(config)
        place, restarts = config.placement, config.ray.max_restarts
        self._ground = ground = Ground(named, run_dir)

        def part(name: str, shell: type, *arguments: object) -> Part:
            actor = _actor(shell, ground.seat(name), restarts)(named, run_dir, *arguments)
            log = run_dir / "logs" / f"{name.replace(' ', '_')}.log"
            return Part(name, actor, log, shell in REPLACEABLE)

        self._archive = part("buffer", ArchiveActor)
        self._references = [
            part(f"reference {rank}", ReferenceActor, rank)
            for rank in range(place.reference.devices if needs_reference(config) else 0)
        ]
        self._collectors = [
            part(f"collector {rank}", CollectorActor, rank) for rank in range(place.infer.replicas)
        ]
        engines = [collector.actor for collector in self._collectors]
        self._trainers = [
            part(f"trainer {rank}", TrainerActor, rank, self._archive.actor, engines)
            for rank in range(place.train.devices)
        ]
        self._crew = Crew(
            [self._archive, *self._references, *self._collectors, *self._trainers],
            config.wait_limit,
            restarts,
            self._renew,
            ground,
        )
        self._dispatch = dispatch_of(config, self._room)
        self._version = 0
        self._sharded = place.train.sharding is Sharding.full

    async def start(self) -> None:
        """Wait until every actor is up.

        Raises:
            TimeoutError: naming one that is not, or what has no room.
            ConfigError: the machine or a node cannot hold what was to be there.
        """
        await self._ground.secure()
        joint = len(self._trainers) > 1 or self._sharded
        address = await self._crew.ask(self._trainers[0], "address") if joint else None
        await asyncio.gather(
            self._crew.start(self._archive),
            *(self._crew.start(trainer, address) for trainer in self._trainers),
            *(self._crew.start(reference) for reference in self._references),
            *(self._start_collector(collector, None) for collector in self._collectors),
        )

    async def collect(self, tickets: Sequence[Ticket]) -> None:
        """Give the order to the collectors, in portions and as they have room."""
        async with asyncio.TaskGroup() as tasks:
            for portion in self._dispatch.portions(tickets):
                tasks.create_task(self._serve(portion))

    async def _serve(self, tickets: Sequence[Ticket]) -> None:
        """Have a collector bring in `tickets`.

        Where an actor is lost meanwhile, what has not reached the buffer is ordered again, from the same
        collector.
        """
        async with self._dispatch.placed(len(tickets)) as index:
            await self._crew.persist(partial(self._order, self._collectors[index], tickets))

    async def _room(self, index: int) -> None:
        """Wait until that collector can use more work; one that is lost has none until it is back."""
        ask = partial(self._crew.ask, self._collectors[index], "await_room")
        while not await self._crew.persist(ask):
            pass

    async def _order(self, collector: Part, tickets: Sequence[Ticket]) -> None:
        missing = set(await self.missing([ticket.group_id for ticket in tickets]))
        if left := [ticket for ticket in tickets if ticket.group_id in missing]:
            await self._crew.ask(collector, "collect", left, signs=self._groups_received)

    async def answer(self, prompts: Sequence[Prompt], temperature: float, seed: int) -> Judged:
        judged = await asyncio.gather(
            *(self._examine(portion, temperature, seed) for portion in self._dispatch.questions(prompts))
        )
        return [one for portion in judged for one in portion]

    async def _examine(self, prompts: Sequence[Prompt], temperature: float, seed: int) -> Judged:
        async with self._dispatch.placed(len(prompts), is_evaluation=True) as index:
            collector = self._collectors[index]
            work = ("answer", prompts, temperature, seed)
            left = partial(self._crew.ask, collector, "unfinished")
            return cast(
                Judged, await self._crew.persist(partial(self._crew.ask, collector, *work, signs=left))
            )

    async def snapshot(self) -> Snapshot:
        return cast(Snapshot, await self._crew.ask(self._archive, "snapshot"))

    async def book(self, iteration: int) -> Tally:
        return cast(Tally, await self._crew.ask(self._archive, "book", iteration))

    async def ledger(self) -> Ledger:
        return cast(Ledger, await self._crew.ask(self._archive, "ledger"))

    async def missing(self, group_ids: Sequence[int]) -> list[int]:
        return cast(list[int], await self._crew.ask(self._archive, "missing", group_ids))

    async def rest(self) -> None:
        resting = (*self._collectors, *self._references)
        await asyncio.gather(*(self._crew.persist(partial(self._crew.ask, part, "rest")) for part in resting))

    async def learn(self, pace: Pace) -> Metrics:
        return cast(Metrics, (await self._ask_trainers("learn", pace))[0])

    async def publish(self, version: int, probes: Sequence[tuple[int, ...]] = ()) -> Metrics:
        # what the trainer holds is `version` from now on, also for an engine that is replaced meanwhile
        self._version = version
        push = partial(self._ask_trainers, "publish", version, probes)
        metrics = cast(Metrics, (await self._crew.persist(push))[0])
        await self._crew.ask(self._archive, "set_version", version)
        return metrics

    async def reset_optimizer(self) -> None:
        await self._ask_trainers("reset_optimizer")

    async def restart(self) -> None:
        await self._ask_trainers("restart")

    async def save(self, folder: Path) -> None:
        await self._ask_trainers("save", folder)
        await self._crew.ask(self._archive, "save", folder)

    async def load(self, folder: Path) -> None:
        await self._ask_trainers("load", folder)
        await self._crew.ask(self._archive, "load", folder)

    async def close(self) -> None:
        """End every actor, and Ray itself if it is this run's own; a cluster is left as it was found.

        Actors leave by themselves, so that they give back their semaphores; Ray would kill them.
        """
        self._dispatch.close()
        if self._ground.secured:
            await self._dismiss()
        self._ground.leave()
        await asyncio.to_thread(ray.shutdown)

    async def _dismiss(self) -> None:
        collectors = [part.actor for part in self._collectors]
        others = [part.actor for part in (*self._trainers, *self._references, self._archive)]
        leaving = [actor.close.remote() for actor in collectors]
        await asyncio.to_thread(ray.wait, leaving, num_returns=len(leaving), timeout=CLOSE_LIMIT)
        leaving = [actor.__ray_terminate__.remote() for actor in others + collectors]
        await asyncio.to_thread(ray.wait, leaving, num_returns=len(leaving), timeout=CLOSE_LIMIT)

    async def _renew(self, part: Part) -> None:
        """Make an actor what it was that Ray has started again; a collector gets the trainer's weights."""
        if part in self._references:
            await self._crew.start(part)
        else:
            await self._start_collector(part, self._version)
            await self._ask_trainers("publish", self._version, (), part.name)

    async def _start_collector(self, part: Part, version: int | None) -> None:
        references = [reference.actor for reference in self._references]
        await self._crew.start(part, self._archive.actor, references, version)

    async def _groups_received(self) -> int:
        return (await self.snapshot()).totals["groups"]

    async def _ask_trainers(self, method: str, *arguments: object) -> list[Any]:
        """Call every rank at once: they wait for each other inside.

        Where one fails, the others may fail for want of it. They get a moment to say so, and a loss is what
        is raised.
        """
        calls = [
            asyncio.ensure_future(self._crew.ask(trainer, method, *arguments)) for trainer in self._trainers
        ]
        try:
            done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION)
            if waiting and not any(isinstance(call.exception(), Lost) for call in done):
                await asyncio.wait(waiting, timeout=SAY_LIMIT)
            if errors := [error for call in calls if call.done() and (error := call.exception())]:
                raise cause_of(errors)
            return [call.result() for call in calls]
        finally:
            for call in calls:
                call.cancel()


def cause_of(errors: Sequence[BaseException]) -> BaseException:
    """What to tell of the errors of ranks that wait for each other: the loss of one, or who is silent."""
    if lost := [error for error in errors if isinstance(error, Lost)]:
        return lost[0]
    if all(isinstance(error, TimeoutError) for error in errors):
        return TimeoutError(" ".join(map(str, errors)))
    return errors[0]


def _actor(shell: type, seat: dict[str, object], max_restarts: int) -> Any:
    """The constructor of `shell` as an actor that takes `seat`."""
    calls = CONCURRENT_CALLS if shell is CollectorActor else 1
    restarts = max_restarts if shell in REPLACEABLE else 0
    return ray.remote(**seat, max_concurrency=calls, max_restarts=restarts)(shell).remote
