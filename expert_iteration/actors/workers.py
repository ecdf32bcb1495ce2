"""The actors of a run, placed, started all at once, asked with a limit, and closed."""

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray

from expert_iteration.actors.crew import Crew, Part
from expert_iteration.actors.dispatch import dispatch_of
from expert_iteration.actors.shells import ArchiveActor, CollectorActor, ReferenceActor, TrainerActor
from expert_iteration.algorithms import needs_reference
from expert_iteration.choices import Device
from expert_iteration.config import RunConfig
from expert_iteration.evaluation import Judged
from expert_iteration.ledger import Ledger
from expert_iteration.room import MOST_ORDERS
from expert_iteration.tokenizer import resolve_model
from expert_iteration.types import Metrics, Pace, Prompt, Snapshot, Tally, Ticket

OBJECT_STORE_BYTES = 512 * 2**20
CLOSE_LIMIT = 10.0
"""Seconds that actors have to leave by themselves."""
CONCURRENT_CALLS = 64 + MOST_ORDERS
"""Calls that a collector serves side by side: orders, evaluations and the steps of a push."""


class RayWorkers:
    """The actors of one run, and the private Ray instance that they live in."""

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        """Start Ray and all actors; `start` waits until they are up."""
        start_ray(config)
        stored, place, restarts = resolve_model(config), config.placement, config.ray.max_restarts
        gpu = _gpus_of_each(config)
        logs = run_dir / "logs"

        def part(name: str, actor: Any, replaceable: bool = False) -> Part:
            return Part(name, actor, logs / f"{name.replace(' ', '_')}.log", replaceable)

        archive = _actor(ArchiveActor, 0)(stored, run_dir)
        scorer = _actor(ReferenceActor, gpu, restarts)
        references = [
            scorer(stored, run_dir, rank)
            for rank in range(place.reference.devices if needs_reference(config) else 0)
        ]
        sampler = _actor(CollectorActor, gpu * place.infer.tensor_parallel, restarts, CONCURRENT_CALLS)
        collectors = [sampler(stored, run_dir, rank) for rank in range(place.infer.replicas)]
        learner = _actor(TrainerActor, gpu)
        trainers = [
            learner(stored, run_dir, rank, archive, collectors) for rank in range(place.train.devices)
        ]
        self._archive = part("buffer", archive)
        self._references = [part(f"reference {i}", actor, True) for i, actor in enumerate(references)]
        self._collectors = [part(f"collector {i}", actor, True) for i, actor in enumerate(collectors)]
        self._trainers = [part(f"trainer {i}", actor) for i, actor in enumerate(trainers)]
        self._crew = Crew(
            [self._archive, *self._references, *self._collectors, *self._trainers],
            config.wait_limit,
            restarts,
            self._renew,
        )
        self._dispatch = dispatch_of(config, self._room)
        self._version = 0

    async def start(self) -> None:
        """Wait until every actor is up.

        Raises:
            TimeoutError: naming one that is not.
        """
        several = len(self._trainers) > 1
        address = await self._crew.ask(self._trainers[0], "address") if several else None
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
        share = -(-len(prompts) // len(self._collectors))
        parts = [
            self._crew.persist(
                partial(
                    self._crew.ask,
                    *(collector, "answer", prompts[index * share : (index + 1) * share], temperature, seed),
                )
            )
            for index, collector in enumerate(self._collectors)
        ]
        return [judged for part in await asyncio.gather(*parts) for judged in part]

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
        push = partial(self._crew.ask, self._trainers[0], "publish", version, probes)
        metrics = cast(Metrics, await self._crew.persist(push))
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
        """End every actor and Ray itself.

        Actors leave by themselves, so that they give back their semaphores; Ray would kill them.
        """
        self._dispatch.close()
        collectors = [part.actor for part in self._collectors]
        others = [part.actor for part in (*self._trainers, *self._references, self._archive)]
        leaving = [actor.close.remote() for actor in collectors]
        await asyncio.to_thread(ray.wait, leaving, num_returns=len(leaving), timeout=CLOSE_LIMIT)
        leaving = [actor.__ray_terminate__.remote() for actor in others + collectors]
        await asyncio.to_thread(ray.wait, leaving, num_returns=len(leaving), timeout=CLOSE_LIMIT)
        await asyncio.to_thread(ray.shutdown)

    async def _renew(self, part: Part) -> None:
        """Make an actor what it was that Ray has started again; a collector gets the trainer's weights."""
        if part in self._references:
            await self._crew.start(part)
        else:
            await self._start_collector(part, self._version)
            await self._crew.ask(self._trainers[0], "publish", self._version, (), part.name)

    async def _start_collector(self, part: Part, version: int | None) -> None:
        references = [reference.actor for reference in self._references]
        await self._crew.start(part, self._archive.actor, references, version)

    async def _groups_received(self) -> int:
        return (await self.snapshot()).totals["groups"]

    async def _ask_trainers(self, method: str, *arguments: object) -> list[Any]:
        """Call every rank at once: they wait for each other inside."""
        return await asyncio.gather(
            *(self._crew.ask(trainer, method, *arguments) for trainer in self._trainers)
        )


def _actor(shell: type, gpus: float, max_restarts: int = 0, concurrent_calls: int = 1) -> Any:
    """The constructor of `shell` as an actor. CPUs are not reserved: threads are set by the placement."""
    options = {
        "num_cpus": 0,
        "num_gpus": gpus,
        "max_concurrency": concurrent_calls,
        "max_restarts": max_restarts,
    }
    return ray.remote(**options)(shell).remote


def _gpus_of_each(config: RunConfig) -> float:
    """Share of a GPU that one actor reserves."""
    if config.placement.device is Device.cpu:
        return 0
    return 1 / (2 + needs_reference(config)) if config.placement.shared else 1


def start_ray(config: RunConfig) -> None:
    """A Ray instance of this run alone, without a dashboard."""
    threads = {"OMP_NUM_THREADS": str(config.placement.infer.threads)}
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        logging_level="ERROR",
        log_to_driver=False,
        runtime_env={"env_vars": threads},
    )
