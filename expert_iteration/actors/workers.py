"""The actors of a run, placed, started all at once, asked with a limit, and closed."""

import asyncio
import os
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray

from expert_iteration.actors.shells import ArchiveActor, CollectorActor, ReferenceActor, TrainerActor
from expert_iteration.algorithms import needs_reference
from expert_iteration.choices import Device
from expert_iteration.config import RunConfig
from expert_iteration.evaluation import Judged
from expert_iteration.ledger import Ledger
from expert_iteration.tokenizer import resolve_model
from expert_iteration.types import Metrics, Pace, Prompt, Snapshot, Tally, Ticket
from expert_iteration.workers import ComponentLost

T = TypeVar("T")

OBJECT_STORE_BYTES = 512 * 2**20
CLOSE_LIMIT = 10.0
"""Seconds that actors have to leave by themselves."""
CONCURRENT_CALLS = 64
"""Calls that a collector serves side by side: orders, evaluations and the steps of a push."""


class RayWorkers:
    """The actors of one run, and the private Ray instance that they live in."""

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        """Start Ray and all actors; `start` waits until they are up."""
        self._limit = config.wait_limit
        self._run_dir = run_dir
        _start_ray(config)
        stored = resolve_model(config)
        gpu = _gpus_of_each(config)
        place = config.placement
        self._archive = _actor(ArchiveActor, 0)(stored, run_dir)
        self._references = [
            _actor(ReferenceActor, gpu)(stored, run_dir, rank)
            for rank in range(place.reference.devices if needs_reference(config) else 0)
        ]
        self._collectors = [
            _actor(CollectorActor, gpu * place.infer.tensor_parallel, CONCURRENT_CALLS)(
                stored, run_dir, rank, self._archive, self._references
            )
            for rank in range(place.infer.replicas)
        ]
        self._trainers = [
            _actor(TrainerActor, gpu)(stored, run_dir, rank, self._archive, self._collectors)
            for rank in range(place.train.devices)
        ]
        self._orders = [0] * len(self._collectors)

    async def start(self) -> None:
        """Wait until every actor is up.

        Raises:
            TimeoutError: naming the actors that are not.
        """
        several = len(self._trainers) > 1
        address = await self._ask(self._trainers[0].address.remote(), "trainer 0") if several else None
        waiting = {f"trainer {i}": actor.start.remote(address) for i, actor in enumerate(self._trainers)}
        waiting |= {f"collector {i}": actor.start.remote() for i, actor in enumerate(self._collectors)}
        waiting |= {f"reference {i}": actor.start.remote() for i, actor in enumerate(self._references)}
        waiting["buffer"] = self._archive.start.remote()
        await asyncio.gather(*(self._ask(reference, name) for name, reference in waiting.items()))

    async def collect(self, tickets: Sequence[Ticket]) -> None:
        """Give the order to the collector with the fewest prompts before it."""
        index = self._orders.index(min(self._orders))
        self._orders[index] += len(tickets)
        try:
            await self._ask_while_groups_arrive(
                self._collectors[index].collect.remote(tickets), f"collector {index}"
            )
        finally:
            self._orders[index] -= len(tickets)

    async def answer(self, prompts: Sequence[Prompt], temperature: float, seed: int) -> Judged:
        share = -(-len(prompts) // len(self._collectors))
        parts = [
            self._ask(
                actor.answer.remote(prompts[index * share : (index + 1) * share], temperature, seed),
                f"collector {index}",
            )
            for index, actor in enumerate(self._collectors)
        ]
        return [judged for part in await asyncio.gather(*parts) for judged in part]

    async def snapshot(self) -> Snapshot:
        return await self._ask(self._archive.snapshot.remote(), "buffer")

    async def book(self, iteration: int) -> Tally:
        return await self._ask(self._archive.book.remote(iteration), "buffer")

    async def ledger(self) -> Ledger:
        return await self._ask(self._archive.ledger.remote(), "buffer")

    async def missing(self, groups: int) -> list[int]:
        return await self._ask(self._archive.missing.remote(groups), "buffer")

    async def learn(self, pace: Pace) -> Metrics:
        return (await self._ask_trainers("learn", pace))[0]

    async def publish(self, version: int) -> Metrics:
        metrics: Metrics = await self._ask(self._trainers[0].publish.remote(version), "trainer 0")
        await self._ask(self._archive.set_version.remote(version), "buffer")
        return metrics

    async def reset_optimizer(self) -> None:
        await self._ask_trainers("reset_optimizer")

    async def restart(self) -> None:
        await self._ask_trainers("restart")

    async def save(self, folder: Path) -> None:
        await self._ask_trainers("save", folder)
        await self._ask(self._archive.save.remote(folder), "buffer")

    async def load(self, folder: Path) -> None:
        await self._ask_trainers("load", folder)
        await self._ask(self._archive.load.remote(folder), "buffer")

    async def close(self) -> None:
        """End every actor and Ray itself.

        Actors leave by themselves, so that they give back their semaphores; Ray would kill them.
        """
        actors = [*self._trainers, *self._references, self._archive]
        leaving = [actor.close.remote() for actor in self._collectors]
        await asyncio.to_thread(ray.wait, leaving, num_returns=len(leaving), timeout=CLOSE_LIMIT)
        leaving = [actor.__ray_terminate__.remote() for actor in actors + self._collectors]
        await asyncio.to_thread(ray.wait, leaving, num_returns=len(leaving), timeout=CLOSE_LIMIT)
        await asyncio.to_thread(ray.shutdown)

    async def _ask_trainers(self, method: str, *arguments: object) -> list[Any]:
        """Call every rank at once: they wait for each other inside."""
        calls = [
            self._ask(getattr(actor, method).remote(*arguments), f"trainer {rank}")
            for rank, actor in enumerate(self._trainers)
        ]
        return await asyncio.gather(*calls)

    async def _ask(self, reference: Awaitable[T], name: str) -> T:
        try:
            return await asyncio.wait_for(self._answer(reference, name), self._limit)
        except TimeoutError:
            raise TimeoutError(f"{name} gave no answer in {self._limit:.0f} s (wait_limit).") from None

    async def _answer(self, reference: Awaitable[T], name: str) -> T:
        """What the actor returned, or raised, in the actor's own words."""
        try:
            return await reference
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayActorError as error:
            log = self._run_dir / "logs" / f"{name.replace(' ', '_')}.log"
            reason = str(error).strip().splitlines()[-1]
            raise ComponentLost(
                f"{name} died: {reason} (see {log}; resume={self._run_dir} goes on)."
            ) from None

    async def _ask_while_groups_arrive(self, reference: Awaitable[None], name: str) -> None:
        """Wait as long as the buffer receives anything within each `wait_limit`."""
        answer = asyncio.ensure_future(self._answer(reference, name))
        received = -1
        while not answer.done():
            await asyncio.wait([answer], timeout=self._limit)
            before, received = received, (await self.snapshot()).totals["groups"]
            if received == before and not answer.done():
                answer.cancel()
                raise TimeoutError(f"{name} brought no group in {self._limit:.0f} s (wait_limit).")
        await answer


def _actor(shell: type, gpus: float, concurrent_calls: int = 1) -> Any:
    """The constructor of `shell` as an actor. CPUs are not reserved: threads are set by the placement."""
    options = {"num_cpus": 0, "num_gpus": gpus, "max_concurrency": concurrent_calls}
    return ray.remote(**options)(shell).remote


def _gpus_of_each(config: RunConfig) -> float:
    """Share of a GPU that one actor reserves."""
    if config.placement.device is Device.cpu:
        return 0
    return 1 / (2 + needs_reference(config)) if config.placement.shared else 1


def _start_ray(config: RunConfig) -> None:
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
