"""A whole run in this process: every part once, no Ray."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from expert_iteration.algorithms import needs_reference
from expert_iteration.archive import Archive
from expert_iteration.collector import Collector
from expert_iteration.config import RunConfig
from expert_iteration.engine import Engine
from expert_iteration.evaluation import Judged
from expert_iteration.ledger import Ledger
from expert_iteration.reference import ReferenceModel
from expert_iteration.timeline import Timeline
from expert_iteration.tokenizer import load_tokenizer, resolve_model
from expert_iteration.trainer import Trainer
from expert_iteration.types import Metrics, Pace, Prompt, Snapshot, Tally, Ticket


class LocalWorkers:
    """`Workers` for tests and for pdb."""

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        config = resolve_model(config)
        device = config.placement.device.value
        self._archive = Archive(config, run_dir)
        self._trainer = Trainer(config, device, self._archive, timeline=Timeline(run_dir, "trainer 0"))
        self._engine = Engine(config.model, config.placement, config.seed, config.wait_limit, config.push)
        self._reference = ReferenceModel(config, device) if needs_reference(config) else None
        tokenizer = load_tokenizer(config.model)
        timeline = Timeline(run_dir, "collector 0")
        self._collector = Collector(config, self._engine, tokenizer, self._archive, self._reference, timeline)

    async def collect(self, tickets: Sequence[Ticket]) -> None:
        await asyncio.to_thread(self._collector.collect, tickets)

    async def answer(self, prompts: Sequence[Prompt], temperature: float, seed: int) -> Judged:
        return await asyncio.to_thread(self._collector.answer, prompts, temperature, seed)

    async def snapshot(self) -> Snapshot:
        return self._archive.snapshot()

    async def book(self, iteration: int) -> Tally:
        return self._archive.book(iteration)

    async def missing(self, group_ids: Sequence[int]) -> list[int]:
        return self._archive.missing(group_ids)

    async def ledger(self) -> Ledger:
        return self._archive.ledger()

    async def rest(self) -> None:
        await asyncio.to_thread(self._engine.rest)
        if self._reference is not None:
            await asyncio.to_thread(self._reference.rest)

    async def learn(self, pace: Pace) -> Metrics:
        return await asyncio.to_thread(self._trainer.learn, pace)

    async def publish(self, version: int, probes: Sequence[tuple[int, ...]] = ()) -> Metrics:
        metrics = await asyncio.to_thread(self._trainer.publish, [self._engine], version, probes)
        self._archive.set_version(version)
        return metrics

    async def reset_optimizer(self) -> None:
        self._trainer.reset_optimizer()

    async def restart(self) -> None:
        self._trainer.restart()

    async def save(self, folder: Path) -> None:
        self._trainer.save(folder)
        self._archive.save(folder)

    async def load(self, folder: Path) -> None:
        self._trainer.load(folder)
        self._archive.load(folder)

    async def close(self) -> None:
        await asyncio.to_thread(self._collector.close)
