"""Ray: one actor for each role, shells around the plain classes, and the cluster that holds them.

This is the only module that imports ray. Actors are placed, started all at once, asked and closed
here; what they do is written elsewhere.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import ray

from expert_iteration.config import Device, RunConfig, needs_reference
from expert_iteration.evaluation import Judged
from expert_iteration.output import redirect_output
from expert_iteration.tokenizer import load_tokenizer, resolve_model
from expert_iteration.types import Group, Metrics, Prompt, Snapshot, Tally, Ticket
from expert_iteration.workers import ComponentLost

if TYPE_CHECKING:
    from tensordict import TensorDictBase

T = TypeVar("T")

OBJECT_STORE_BYTES = 512 * 2**20
CONCURRENT_CALLS = 64
"""Calls that a collector serves side by side: orders, evaluations and the steps of a push."""

PRIVATE = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


class ArchiveActor:
    """Calls are served one after the other."""

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        redirect_output(run_dir, "buffer")
        from expert_iteration.archive import Archive

        _use_threads(1)
        self._archive = Archive(config, run_dir)

    def ready(self) -> None:
        """Answers as soon as the actor is up."""

    def add(self, group: Group, rows: "Sequence[TensorDictBase]") -> Mapping[int, str]:
        return self._archive.add(group, rows)

    def draw(self, step: int, rank: int, world_size: int) -> "Sequence[TensorDictBase]":
        return self._archive.draw(step, rank, world_size)

    def set_version(self, version: int) -> None:
        self._archive.set_version(version)

    def snapshot(self) -> Snapshot:
        return self._archive.snapshot()

    def book(self, iteration: int) -> Tally:
        return self._archive.book(iteration)

    def missing(self, groups: int) -> list[int]:
        return self._archive.missing(groups)

    def save(self, folder: Path) -> None:
        self._archive.save(folder)

    def load(self, folder: Path) -> None:
        self._archive.load(folder)


class ReferenceActor:
    def __init__(self, config: RunConfig, run_dir: Path, rank: int) -> None:
        redirect_output(run_dir, f"reference_{rank}")
        from expert_iteration.reference import ReferenceModel

        _use_threads(config.placement.train.threads)
        self._reference = ReferenceModel(config, config.placement.device.value)

    def ready(self) -> None:
        """Answers as soon as the actor is up."""

    def log_probs(self, rows: "list[TensorDictBase]") -> list[Any]:
        return self._reference.log_probs(rows)


class CollectorActor:
    def __init__(self, config: RunConfig, run_dir: Path, rank: int, archive: Any, reference: Any) -> None:
        redirect_output(run_dir, f"collector_{rank}")
        from expert_iteration.collector import Collector
        from expert_iteration.engine import Engine

        limit = config.wait_limit
        self._engine = Engine(config.model, config.placement, config.seed, limit)
        self._collector = Collector(
            config,
            self._engine,
            load_tokenizer(config.model),
            RemoteArchive(archive, limit),
            reference and RemoteReference(reference, limit),
        )

    def ready(self) -> None:
        """Answers as soon as the actor is up."""

    def collect(self, tickets: Sequence[Ticket]) -> None:
        self._collector.collect(tickets)

    def answer(self, prompts: Sequence[Prompt], temperature: float, seed: int) -> Judged:
        return self._collector.answer(prompts, temperature, seed)

    def start_update(self, version: int) -> None:
        self._engine.start_update(version)

    def receive(self, bucket: Any) -> None:
        self._engine.receive(bucket)

    def finish_update(self) -> None:
        self._engine.finish_update()

    def close(self) -> None:
        self._collector.close()


class TrainerActor:
    def __init__(self, config: RunConfig, run_dir: Path, rank: int, archive: Any, engines: list[Any]) -> None:
        redirect_output(run_dir, f"trainer_{rank}")
        _use_threads(config.placement.train.threads)
        self._config = config
        self._rank = rank
        self._archive = RemoteArchive(archive, config.wait_limit)
        self._engines = RemoteEngines(engines, config.wait_limit)

    def address(self) -> str:
        """A free address of this node, where the ranks meet."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def join(self, address: str | None) -> None:
        """Meet the other ranks at `address` (None: there are none), then load the model."""
        from expert_iteration.trainer import Trainer

        device = self._config.placement.device
        if address is not None:
            import torch.distributed

            torch.distributed.init_process_group(
                "nccl" if device is Device.cuda else "gloo",
                init_method=address,
                rank=self._rank,
                world_size=self._config.placement.train.devices,
                timeout=timedelta(seconds=self._config.wait_limit),
            )
        self._trainer = Trainer(self._config, device.value, self._archive, self._rank)

    def learn(self, first_step: int, steps: int, schedule: tuple[float, float]) -> Metrics:
        return self._trainer.learn(first_step, steps, schedule)

    def publish(self, version: int) -> Metrics:
        return self._trainer.publish([self._engines], version)

    def reset_optimizer(self) -> None:
        self._trainer.reset_optimizer()

    def save(self, folder: Path) -> None:
        self._trainer.save(folder)

    def load(self, folder: Path) -> None:
        self._trainer.load(folder)


class RemoteArchive:
    """The archive for collectors (`add`) and trainers (`draw`)."""

    def __init__(self, actor: Any, limit: float) -> None:
        self._actor, self._limit = actor, limit

    def add(self, group: Group, rows: "Sequence[TensorDictBase]") -> Mapping[int, str]:
        return cast(Mapping[int, str], _get(self._actor.add.remote(group, rows), self._limit))

    def draw(self, step: int, rank: int, world_size: int) -> "Sequence[TensorDictBase]":
        rows = _get(self._actor.draw.remote(step, rank, world_size), self._limit)
        return cast("Sequence[TensorDictBase]", rows)


class RemoteReference:
    """The reference actors for collectors, asked in turn."""

    def __init__(self, actors: list[Any], limit: float) -> None:
        self._actors, self._limit, self._turn = actors, limit, 0

    def log_probs(self, rows: "Sequence[TensorDictBase]") -> list[Any]:
        self._turn += 1
        actor = self._actors[self._turn % len(self._actors)]
        return cast(list[Any], _get(actor.log_probs.remote(rows), self._limit))


class RemoteEngines:
    """All engines as one client of a push: each bucket is stored once and read by all."""

    def __init__(self, actors: list[Any], limit: float) -> None:
        self._actors, self._limit = actors, limit

    def start_update(self, version: int) -> None:
        _get([actor.start_update.remote(version) for actor in self._actors], self._limit)

    def receive(self, bucket: Any) -> None:
        stored = ray.put(bucket)
        _get([actor.receive.remote(stored) for actor in self._actors], self._limit)

    def finish_update(self) -> None:
        _get([actor.finish_update.remote() for actor in self._actors], self._limit)


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
        waiting = {f"trainer {i}": actor.join.remote(address) for i, actor in enumerate(self._trainers)}
        waiting |= {f"collector {i}": actor.ready.remote() for i, actor in enumerate(self._collectors)}
        waiting |= {f"reference {i}": actor.ready.remote() for i, actor in enumerate(self._references)}
        waiting["buffer"] = self._archive.ready.remote()
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

    async def missing(self, groups: int) -> list[int]:
        return await self._ask(self._archive.missing.remote(groups), "buffer")

    async def learn(self, first_step: int, steps: int, schedule: tuple[float, float]) -> Metrics:
        return (await self._ask_trainers("learn", first_step, steps, schedule))[0]

    async def publish(self, version: int) -> Metrics:
        metrics: Metrics = await self._ask(self._trainers[0].publish.remote(version), "trainer 0")
        await self._ask(self._archive.set_version.remote(version), "buffer")
        return metrics

    async def reset_optimizer(self) -> None:
        await self._ask_trainers("reset_optimizer")

    async def save(self, folder: Path) -> None:
        await self._ask_trainers("save", folder)
        await self._ask(self._archive.save.remote(folder), "buffer")

    async def load(self, folder: Path) -> None:
        await self._ask_trainers("load", folder)
        await self._ask(self._archive.load.remote(folder), "buffer")

    async def close(self) -> None:
        """End every actor and Ray itself."""
        closing = [actor.close.remote() for actor in self._collectors]
        await asyncio.to_thread(ray.wait, closing, num_returns=len(closing), timeout=10)
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
            raise error.cause from None
        except ray.exceptions.RayActorError as error:
            log = self._run_dir / "logs" / f"{name.replace(' ', '_')}.log"
            reason = str(error).strip().splitlines()[-1]
            raise ComponentLost(f"{name} died: {reason} (see {log}; resume={self._run_dir} goes on).") from None

    async def _ask_while_groups_arrive(self, reference: Awaitable[None], name: str) -> None:
        """Wait as long as the buffer receives anything within each `wait_limit`."""
        answer = asyncio.ensure_future(self._answer(reference, name))
        received = -1
        while not answer.done():
            await asyncio.wait([answer], timeout=self._limit)
            before, received = received, (await self.snapshot()).received
            if received == before and not answer.done():
                answer.cancel()
                raise TimeoutError(f"{name} brought no group in {self._limit:.0f} s (wait_limit).")
        await answer


def _get(references: Any, limit: float) -> Any:
    return ray.get(references, timeout=limit)


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
    """A Ray instance of this run alone: token-guarded, no dashboard, no telemetry."""
    os.environ.update(PRIVATE)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
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


def _use_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)
