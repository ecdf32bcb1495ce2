"""The actors: each holds one plain class, in a process of its own that writes to its own log.

Heavy imports happen in the process that needs them, not in the driver that defines the class. What can
fail happens in `start`, because Ray only says of a failed `__init__` that the actor died.
"""

import atexit
import gc
import multiprocessing
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import ray

from expert_iteration.actors.parcels import PackedRow, packed, unpacked, unpacked_groups
from expert_iteration.actors.remote import RemoteArchive, RemoteEngines, RemoteReference
from expert_iteration.actors.silence import write_stacks_when_told
from expert_iteration.choices import Device
from expert_iteration.config import RunConfig
from expert_iteration.evaluation import Judged
from expert_iteration.faults import reach
from expert_iteration.ledger import Ledger
from expert_iteration.model_files import is_there
from expert_iteration.output import redirect_output
from expert_iteration.placement.places import Place
from expert_iteration.placement.storage import read_mark
from expert_iteration.timeline import Timeline
from expert_iteration.tokenizer import load_tokenizer, resolve_model
from expert_iteration.types import Group, Interruption, Metrics, Pace, Prompt, Snapshot, Tally, Ticket

if TYPE_CHECKING:
    from numpy import ndarray

    from expert_iteration.collector import Collector
    from expert_iteration.engine import Engine, Request, Rollouts
    from expert_iteration.reference import ReferenceModel

T = TypeVar("T")


class NotStarted(RuntimeError):
    """An actor was started again by Ray and holds nothing yet. The message is its name."""


class Shell:
    """A process with a log of its own."""

    def __init__(self, config: RunConfig, run_dir: Path, name: str) -> None:
        """Prepare the process, before anything heavy is imported; `config.model` is pinned."""
        # the model shipped with the package lies where this node has the package
        self._config, self._run_dir, self._name = resolve_model(config), run_dir, name
        self._timeline = Timeline(run_dir, name)
        redirect_output(run_dir, name.replace(" ", "_"))
        write_stacks_when_told()
        # semaphores of this context have no name, so an actor that is killed leaves none in /dev/shm
        multiprocessing.set_start_method("fork")
        # a last collection of all that was imported takes seconds, for which the process outlives the run
        atexit.register(gc.freeze)

    def place(self) -> Place:
        return Place(
            ray.get_runtime_context().get_node_id(),
            ray.util.get_node_ip_address(),
            os.getpid(),
            tuple(ray.get_runtime_context().get_accelerator_ids()["GPU"]),
            read_mark(self._run_dir),
            is_there(self._config.model),
        )

    def _started(self, held: T | None) -> T:
        if held is None:
            raise NotStarted(self._name)
        return held


class ArchiveActor(Shell):
    """Calls are served one after the other."""

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        super().__init__(config, run_dir, "buffer")

    def start(self) -> None:
        from expert_iteration.archive import Archive

        _use_threads(1)
        self._archive = Archive(self._config, self._run_dir)

    def add(self, groups: "Sequence[tuple[Group, list[PackedRow]]]", wasted: Sequence[Group]) -> None:
        self._archive.add(unpacked_groups(groups), wasted)

    def draw(self, step: int, rank: int, world_size: int) -> list[PackedRow]:
        return packed(self._archive.draw(step, rank, world_size))

    def set_version(self, version: int) -> None:
        self._archive.set_version(version)

    def snapshot(self) -> Snapshot:
        return self._archive.snapshot()

    def book(self, iteration: int) -> Tally:
        return self._archive.book(iteration)

    def missing(self, group_ids: Sequence[int]) -> list[int]:
        return self._archive.missing(group_ids)

    def ledger(self) -> Ledger:
        return self._archive.ledger()

    def save(self, folder: Path) -> None:
        self._archive.save(folder)

    def load(self, folder: Path) -> None:
        self._archive.load(folder)


class ReferenceActor(Shell):
    """Replaceable: its weights are those that the run began with."""

    def __init__(self, config: RunConfig, run_dir: Path, rank: int) -> None:
        super().__init__(config, run_dir, f"reference {rank}")
        self._reference: ReferenceModel | None = None

    def start(self) -> None:
        from expert_iteration.reference import ReferenceModel

        _use_threads(self._config.placement.train.threads)
        self._reference = ReferenceModel(self._config, self._config.placement.device.value)

    def is_up(self) -> bool:
        return self._reference is not None

    def rest(self) -> None:
        self._started(self._reference).rest()

    def log_probs(self, rows: "list[PackedRow]") -> "list[ndarray[Any, Any]]":
        reach("reference.score")
        with self._timeline.span("score"):
            return [scores.numpy() for scores in self._started(self._reference).log_probs(unpacked(rows))]


class CollectorActor(Shell):
    """Replaceable: its weights are the trainer's, and what it is at work on can be ordered again."""

    def __init__(self, config: RunConfig, run_dir: Path, rank: int) -> None:
        super().__init__(config, run_dir, f"collector {rank}")
        self._engine: Engine | None = None
        self._collector: Collector | None = None
        self._open = ExitStack()

    def start(self, archive: Any, references: list[Any], version: int | None) -> None:
        """Load the model. It generates nothing before the weights of policy `version` are pushed to it.

        Without a version those on disk are the right ones. The other actors are no arguments of
        `__init__`, which Ray might not have any more when it starts this one again.
        """
        from expert_iteration.collector import Collector
        from expert_iteration.engine import Engine

        config, limit = self._config, self._config.wait_limit
        engine = Engine(config.model, config.placement, config.seed, limit, config.push)
        self._open.callback(engine.close)
        if version is not None:
            engine.start_update(version)
        tokenizer = load_tokenizer(config.model)
        sink = RemoteArchive(archive, limit)
        scorer = RemoteReference(references, limit) if references else None
        collector = Collector(config, engine, tokenizer, sink, scorer, self._timeline)
        self._open.callback(collector.close)
        self._engine, self._collector = engine, collector

    def is_up(self) -> bool:
        return self._collector is not None

    def collect(self, tickets: Sequence[Ticket]) -> None:
        self._started(self._collector).collect(tickets)

    def await_room(self) -> bool:
        return self._started(self._collector).await_room()

    def answer(self, prompts: Sequence[Prompt], temperature: float, seed: int) -> Judged:
        return self._started(self._collector).answer(prompts, temperature, seed)

    def unfinished(self) -> int:
        """Answers that the engine has not finished."""
        return self._started(self._engine).unfinished

    def meeting(self) -> str | None:
        return self._started(self._engine).meeting

    def connect(self, meeting: str, init_info: dict[str, Any]) -> None:
        self._started(self._engine).connect(meeting, init_info)

    def rest(self) -> None:
        self._started(self._engine).rest()

    def start_update(self, version: int) -> None:
        self._started(self._engine).start_update(version)

    def receive(self, parcel: Any) -> None:
        reach("collector.receive")
        self._started(self._engine).receive(parcel)

    def finish_update(self) -> Interruption:
        return self._started(self._engine).finish_update()

    def sample(self, requests: "Sequence[Request]") -> "list[Rollouts]":
        return self._started(self._engine).generate(requests, self._config.wait_limit)

    def close(self) -> None:
        """Stop generating and grading; nothing to do when `start` did not come so far."""
        self._open.close()


class TrainerActor(Shell):
    def __init__(self, config: RunConfig, run_dir: Path, rank: int, archive: Any, engines: list[Any]) -> None:
        super().__init__(config, run_dir, f"trainer {rank}")
        _use_threads(config.placement.train.threads)
        self._rank = rank
        self._archive = RemoteArchive(archive, config.wait_limit)
        self._engines = {f"collector {rank}": engine for rank, engine in enumerate(engines)}

    def address(self) -> str:
        """A free address of this node, where the ranks meet."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def start(self, address: str | None) -> None:
        """Meet the other ranks at `address` (None: there is nobody to meet), then load the model."""
        from expert_iteration.trainer import Trainer

        device, offload = self._config.placement.device, self._config.placement.train.cpu_offload
        on_gpu = "cpu:gloo,cuda:nccl" if offload else "nccl"
        if address is not None:
            import torch.distributed

            torch.distributed.init_process_group(
                on_gpu if device is Device.cuda else "gloo",
                init_method=address,
                rank=self._rank,
                world_size=self._config.placement.train.devices,
                timeout=timedelta(seconds=self._config.wait_limit),
            )
        self._trainer = Trainer(self._config, device.value, self._archive, self._rank, self._timeline)

    def learn(self, pace: Pace) -> Metrics:
        return self._trainer.learn(pace)

    def publish(
        self, version: int, probes: Sequence[tuple[int, ...]] = (), only: str | None = None
    ) -> Metrics:
        """Push the weights to every engine, or to that of the collector named `only`.

        All ranks are asked at once: the first one pushes, with the help of the others.
        """
        chosen = {name: engine for name, engine in self._engines.items() if only in (None, name)}
        return self._trainer.publish([RemoteEngines(chosen, self._config.wait_limit)], version, probes)

    def reset_optimizer(self) -> None:
        self._trainer.reset_optimizer()

    def restart(self) -> None:
        self._trainer.restart()

    def save(self, folder: Path) -> None:
        self._trainer.save(folder)

    def load(self, folder: Path) -> None:
        self._trainer.load(folder)


def _use_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)
