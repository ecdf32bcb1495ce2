"""The main loop. Read this file first.

    prompts -> rollouts -> grading -> reference log-probs -> selection -> replay buffer
            -> loss -> optimizer -> weight push -> (rollouts)

`train` is the whole of it; `Run` holds the stages that the scheduler sets in motion, synchronously
or not. Tensors never pass through here: collectors write samples to the buffer, trainers read them
from it, and this loop sees counts and metrics.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from expert_iteration import checkpoint
from expert_iteration.algorithms import Source, algorithm_of
from expert_iteration.books import rates
from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.evaluation import Judged, evaluate
from expert_iteration.prompts import Data, PromptOrder
from expert_iteration.reporting import Phase, Reporter
from expert_iteration.scheduler import Backlog, Laws, Progress, Scheduler, Stopped
from expert_iteration.types import Prompt, Snapshot, Tally
from expert_iteration.workers import Workers

LOOK_EVERY = 1.0
"""Seconds between looks at the buffer while groups are collected."""


async def train(config: RunConfig, run_dir: Path, data: Data, workers: Workers, reporter: Reporter) -> str:
    """Run expert iteration, or go on with it; returns the reason why it ended."""
    run = Run(config, run_dir, data, workers, reporter)
    await run.begin()
    scheduler = Scheduler(run.laws, run, run.progress, await workers.missing(run.laws.groups))
    _stop_on_signal(scheduler)
    watching = asyncio.create_task(run.watch())
    reason = "finished"
    try:
        await scheduler.run()
    except* Stopped:
        await run.save()
        reason = "stopped"
    finally:
        watching.cancel()
    reporter.finish(reason, (await workers.snapshot()).totals | data.left_out)
    return reason


class Run:
    """The stages of one run, and where it stands."""

    def __init__(
        self, config: RunConfig, run_dir: Path, data: Data, workers: Workers, reporter: Reporter
    ) -> None:
        self.laws = laws_of(config)
        self.progress = checkpoint.progress_of(run_dir) if config.resume else Progress()
        self._config = config
        self._run_dir = run_dir
        self._workers = workers
        self._reporter = reporter
        self._order = PromptOrder(data.train, config.prompts_per_iteration, config.seed)
        self._held_out = data.held_out.prompts
        self._orders_open = 0
        self._collecting: Phase | None = None
        self._learning: Phase | None = None
        self._collect_seconds = 0.0
        self._opened = 0.0
        self._counted_from = 0.0
        self._before: Tally = Counter()
        self._seen: Tally = Counter()

    async def begin(self) -> None:
        """Load the newest checkpoint of a resumed run, or evaluate the initial model."""
        if self._config.resume is None:
            await self._evaluate()
            self._reporter.end_iteration(0)
            return
        with self._reporter.phase("load"):
            await self._workers.load(checkpoint.newest(self._run_dir))
            await self._workers.publish(self.progress.version)

    async def collect(self, group_ids: Sequence[int]) -> None:
        tickets = [self._order.ticket(group_id) for group_id in group_ids]
        await self._open_collecting(tickets[0].iteration)
        await self._workers.collect(tickets)
        await self._look()
        self._orders_open -= 1
        if self._orders_open == 0 and self._collecting is not None:
            self._collecting.close()
            self._collecting = None
            self._collect_seconds += time.monotonic() - self._counted_from

    async def backlog(self) -> Backlog:
        seen = await self._workers.snapshot()
        return Backlog(seen.uses_left, seen.steps_left, seen.consumed)

    async def learn(self, steps: int, schedule: tuple[float, float]) -> None:
        if self._learning is None:
            left = (await self._workers.snapshot()).steps_left
            total = left if self.laws.publish_every is None else None
            self._learning = self._reporter.phase("learn", total, self._iteration)
        metrics = await self._workers.learn(self.progress.steps, steps, schedule)
        metrics["policy/version"] = float(self.progress.version)
        self._reporter.log(metrics, self._iteration, self.progress.steps + steps)
        self._reporter.advance("learn", steps, metrics)

    async def publish(self, version: int) -> None:
        self._close_learning()
        with self._reporter.phase("publish", iteration=self._iteration):
            metrics = await self._workers.publish(version)
        metrics["policy/version"] = float(version)
        self._reporter.log(metrics, self._iteration, self.progress.steps)

    async def finish_iteration(self, iteration: int) -> None:
        self._close_learning()
        config, step = self._config, self.progress.steps
        book = await self._workers.book(iteration)
        seen = await self._workers.snapshot()
        self._reporter.log(rates(book, self._take_collect_seconds()) | _ages(seen), iteration, step)
        if config.optimizer.reset_each_iteration:
            await self._workers.reset_optimizer()
        if self._due(config.eval.every):
            await self._evaluate()
        if self._due(config.checkpoint.every):
            await self.save()
        self._reporter.end_iteration(iteration)

    async def save(self) -> None:
        with (
            self._reporter.phase("save", iteration=self.progress.iteration),
            checkpoint.saving(self._run_dir, self.progress, self._config.checkpoint.keep_last) as folder,
        ):
            await self._workers.save(folder)

    async def watch(self) -> None:
        """Keep the display alive while groups come in."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._collecting is not None:
                await self._look()

    async def _evaluate(self) -> None:
        config, iteration = self._config, self.progress.iteration

        async def answer(prompts: Sequence[Prompt], temperature: float, seed: int) -> Judged:
            judged = await self._workers.answer(prompts, temperature, seed)
            self._reporter.advance("evaluate", len(judged))
            return judged

        with self._reporter.phase("evaluate", 2 * len(self._held_out), iteration):
            metrics = await evaluate(answer, self._held_out, config.sampling.temperature, config.eval.seed)
        metrics["policy/version"] = float(self.progress.version)
        self._reporter.log(metrics, iteration, self.progress.steps)

    async def _look(self) -> None:
        totals = (await self._workers.snapshot()).totals
        new, self._seen = totals["rollouts"] - self._seen["rollouts"], totals
        if self._collecting is None:
            return
        seconds = max(time.monotonic() - self._opened, 1e-9)
        live = {
            "selection/kept": float(totals["kept"] - self._before["kept"]),
            "rollout/tokens_per_second": (totals["tokens"] - self._before["tokens"]) / seconds,
        }
        self._reporter.advance("collect", new, live)

    async def _open_collecting(self, iteration: int) -> None:
        self._orders_open += 1
        if self._orders_open > 1:
            return
        total = self._config.prompts_per_iteration * self._config.rollouts_per_prompt
        synchronous = self.laws.publish_every is None
        self._collecting = self._reporter.phase("collect", total if synchronous else None, iteration)
        self._before = self._seen = (await self._workers.snapshot()).totals
        self._opened = self._counted_from = time.monotonic()

    def _take_collect_seconds(self) -> float:
        """Seconds of collecting since the last call."""
        now = time.monotonic()
        if self._collecting is not None:
            self._collect_seconds += now - self._counted_from
            self._counted_from = now
        seconds, self._collect_seconds = self._collect_seconds, 0.0
        return seconds

    def _close_learning(self) -> None:
        if self._learning is not None:
            self._learning.close()
            self._learning = None

    def _due(self, every: int) -> bool:
        done, last = self.progress.iteration, self.progress.iteration == self.laws.iterations
        return last or (every > 0 and done % every == 0)

    @property
    def _iteration(self) -> int:
        """The iteration that is learned now, 1 for the first."""
        return min(self.progress.iteration + 1, self.laws.iterations)


def laws_of(config: RunConfig) -> Laws:
    """What the scheduler needs to know of a configuration.

    Raises:
        ConfigError: collectors and learner could wait for each other for ever.
    """
    mode = config.mode
    sampled = algorithm_of(config).source is Source.POLICY
    answers = config.rollouts_per_prompt if sampled else 1
    laws = Laws(
        iterations=config.iterations,
        groups_per_iteration=config.prompts_per_iteration,
        batch_size=config.batch_size,
        uses_per_group=config.epochs * min(config.selection.top_k or answers, answers),
        max_staleness=mode.max_staleness,
        publish_every=mode.publish_every,
        min_uses=mode.min_buffer * config.epochs,
        groups_per_request=mode.prompts_per_request,
        replicas=config.placement.infer.replicas,
    )
    if mode.publish_every is not None and laws.steps_held > mode.max_staleness * mode.publish_every:
        raise ConfigError(
            f"mode.max_staleness ({mode.max_staleness}) x mode.publish_every ({mode.publish_every}) must be "
            f"at least {laws.steps_held}: mode.min_buffer ({mode.min_buffer}) and one request of "
            f"mode.prompts_per_request ({laws.request_size}) prompts can hold that many optimizer steps; "
            "raise the former or lower the latter."
        )
    return laws


def _ages(seen: Snapshot) -> dict[str, float]:
    return {
        "policy/age_max": float(seen.oldest_age),
        "buffer/live": float(seen.live),
        "buffer/expired": float(seen.expired),
    }


def _stop_on_signal(scheduler: Scheduler) -> None:
    """The first signal saves and ends the run; a second one is not caught."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    stopping: list[asyncio.Task[None]] = []  # the loop itself only keeps a weak reference

    def stop() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
        stopping.append(loop.create_task(scheduler.stop()))

    for number in numbers:
        loop.add_signal_handler(number, stop)
