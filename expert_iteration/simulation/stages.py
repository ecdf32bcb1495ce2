"""The stages of a run on paper: they count as a rehearsal does, and let time pass."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack

from expert_iteration.algorithms import Source, algorithm_of, needs_reference
from expert_iteration.config import RunConfig, members_of
from expert_iteration.dispatch import dispatch_of
from expert_iteration.planning.rehearsal import CountingStages, is_due
from expert_iteration.rounds import rounds_of
from expert_iteration.scheduler import Backlog, Progress
from expert_iteration.simulation.engine import Ordered, SimulatedEngine
from expert_iteration.simulation.rates import Rates
from expert_iteration.simulation.turns import Turns
from expert_iteration.simulation.workload import Workload

TICKS = 8
"""Times that an engine looks up while an answer of mean length is sampled."""
QUESTIONS = 500
"""Of an evaluation that asks all that there are, about."""


class SimulatedStages:
    """`Stages` for the real scheduler. Nothing grows too old, abstains or dies."""

    def __init__(self, config: RunConfig, rates: Rates, workload: Workload, progress: Progress) -> None:
        place = config.placement
        self.phases: dict[str, float] = defaultdict(float)
        """Seconds of the learner's side by what it did."""
        self.ended: list[float] = []
        """When each iteration was over, in seconds."""
        self.trained = 0.0
        """Seconds in which the trainers computed."""
        self.scored = 0.0
        """Seconds of all references together."""
        self._config = config
        self._rates = rates
        self._workload = workload
        self._progress = progress
        self._counting = CountingStages(config, self._kept, progress)
        self._lot = random.Random(config.seed)
        self._sampled = algorithm_of(config).source is Source.POLICY
        self._trainer = asyncio.Lock()
        stride = max(1, round(workload.of(0).lengths.mean / TICKS))
        interrupted = config.mode.publish_every is not None or place.infer.replicas > 1
        self.engines = [
            SimulatedEngine(rates, stride, self._trainer if place.shared else asyncio.Lock(), interrupted)
            for _ in range(place.infer.replicas)
        ]
        self._dispatch = dispatch_of(config, lambda index: self.engines[index].await_room())
        self.references = [
            self._trainer if place.shared else asyncio.Lock()
            for _ in range(place.reference.devices if needs_reference(config) else 0)
        ]

    def _kept(self, group_id: int) -> int:
        """As many whole answers of each iteration as its mean says."""
        place = group_id % self._config.prompts_per_iteration
        mean = self._workload.of(group_id // self._config.prompts_per_iteration).kept
        return int((place + 1) * mean + 1e-9) - int(place * mean + 1e-9)

    async def collect(self, group_ids: Sequence[int]) -> None:
        """Portions of the order go to the engines that have room."""
        if self._sampled:
            async with asyncio.TaskGroup() as portions:
                for portion in self._dispatch.portions(group_ids):
                    portions.create_task(self._serve(portion))
        else:
            await self._counting.collect(group_ids)
        await asyncio.sleep(self._rates.order)

    def close(self) -> None:
        self._dispatch.close()

    async def _serve(self, group_ids: Sequence[int]) -> None:
        async with self._dispatch.placed(len(group_ids)) as index:
            await self._sample(index, group_ids)

    async def _sample(self, index: int, group_ids: Sequence[int]) -> None:
        """Groups reach the buffer bundle by bundle, as they are finished and judged."""
        answers = self._workload.of(group_ids[0] // self._config.prompts_per_iteration)
        done: asyncio.Queue[Ordered] = asyncio.Queue()
        turns = {group_id: Turns(self._config, answers, self._lot) for group_id in group_ids}
        self.engines[index].submit([Ordered(turn.next(), done, group_id) for group_id, turn in turns.items()])
        while turns:
            bundle = [await done.get()]
            while not done.empty():
                bundle.append(done.get_nowait())
            lengths = [length for order in bundle for length in order.lengths]
            await asyncio.sleep(self._rates.judge * len(lengths))
            again = [Ordered(turns[one.group_id].next(), done, one.group_id, begun=True) for one in bundle]
            if more := [order for order in again if order.lengths]:
                self.engines[index].submit(more)
            finished = [order.group_id for order in again if not order.lengths]
            if self.references:
                positions = sum(lengths) + len(lengths) * self._rates.prompt_tokens
                await self._score(index, answers.odds.pass_rate * positions)
            await self._counting.collect(finished)
            for group_id in finished:
                del turns[group_id]

    async def _score(self, index: int, tokens: float) -> None:
        async with self.references[index % len(self.references)]:
            seconds = self._rates.score * tokens + self._rates.order
            self.scored += seconds
            await asyncio.sleep(seconds)

    @property
    def steps(self) -> int:
        """Optimizer steps taken."""
        return self._counting.counts.steps

    async def backlog(self) -> Backlog:
        return await self._counting.backlog()

    async def learn(self, steps: int, schedule: tuple[float, float]) -> None:
        begun = self._now
        for _ in range(steps):
            before = self._counting.counts.used
            await self._counting.learn(1, schedule)
            async with self._trainer:
                seconds = self._step_seconds(self._counting.counts.used - before)
                self.trained += seconds
                await asyncio.sleep(seconds)
        await asyncio.sleep(self._rates.order)
        self.phases["learn"] += self._now - begun

    def _step_seconds(self, rows: int) -> float:
        """The rank with the most positions is waited for."""
        ranks = self._config.placement.train.devices
        lengths = self._workload.of(self._progress.iteration).kept_lengths.draw(rows, self._lot)
        shards = (lengths[rank::ranks] for rank in range(ranks))
        most = max(sum(shard) + len(shard) * self._rates.prompt_tokens for shard in shards)
        return self._rates.learn + most * self._rates.position

    async def publish(self, version: int) -> None:
        begun = self._now
        await self._counting.publish(version)
        async with AsyncExitStack() as stopped:
            for gpu in dict.fromkeys([self._trainer, *(engine.gpu for engine in self.engines)]):
                await stopped.enter_async_context(gpu)
            await asyncio.sleep(self._rates.publish)
        self.phases["publish"] += self._now - begun

    async def finish_iteration(self, iteration: int) -> None:
        config = self._config
        await self._counting.finish_iteration(iteration)
        if is_due(config.eval.every, iteration, config.iterations):
            begun = self._now
            for _ in rounds_of(config):
                await self._ask_all(iteration)
            self.phases["evaluate"] += self._now - begun
        if is_due(config.checkpoint.every, iteration, config.iterations):
            await asyncio.sleep(self._rates.save)
            self.phases["save"] += self._rates.save
        self.ended.append(self._now)

    async def _ask_all(self, iteration: int) -> None:
        """One round of an evaluation: an answer to each question, of which no row is made."""
        limit = self._config.eval.limit
        questions = (QUESTIONS if limit is None else limit) * len(members_of(self._config.task))
        lengths = self._workload.of(iteration).lengths.draw(questions, self._lot)
        async with asyncio.TaskGroup() as portions:
            for portion in self._dispatch.questions(lengths):
                portions.create_task(self._examine(portion))
        await asyncio.sleep(self._rates.order)

    async def _examine(self, lengths: Sequence[int]) -> None:
        async with self._dispatch.placed(len(lengths), is_evaluation=True) as index:
            done: asyncio.Queue[Ordered] = asyncio.Queue()
            self.engines[index].submit([Ordered([length], done) for length in lengths])
            for _ in lengths:
                await done.get()

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()
