"""The stages of one run, as the scheduler sets them in motion, and where the run stands."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from expert_iteration import checkpoint
from expert_iteration.adaptive import peak_rate
from expert_iteration.algorithms import answers_at_once
from expert_iteration.books import alarm, count_verdicts, rates
from expert_iteration.checkpoint import Origin, Standing
from expert_iteration.choices import OnCollapse, Start
from expert_iteration.config import RunConfig, to_plain
from expert_iteration.evaluation import Judged, evaluate
from expert_iteration.faults import reach
from expert_iteration.health import Health
from expert_iteration.ledger import summary
from expert_iteration.prompts import Data
from expert_iteration.reporting import Collecting, Phase, Reporter
from expert_iteration.reporting.redact import redact
from expert_iteration.reporting.rollouts import file_of
from expert_iteration.rounds import rounds_of
from expert_iteration.scheduler import Backlog, Progress, Stopped
from expert_iteration.types import Metrics, Pace, Prompt, Snapshot, Tally, Verdict
from expert_iteration.visits import Visits
from expert_iteration.workers import Workers

LOOK_EVERY = 1.0
"""Seconds between looks at the buffer while groups are collected."""

PROBES = 8
"""Held-out prompts that verify a push."""

logger = logging.getLogger(__name__)


class Run:
    """Each stage asks the workers, and reports what they say."""

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        data: Data,
        workers: Workers,
        reporter: Reporter,
        origin: Origin,
    ) -> None:
        self.progress = replace(origin.saved.standing.progress) if origin.saved else Progress()
        self._saved = origin.saved
        self._config = config
        self._run_dir = run_dir
        self._workers = workers
        self._reporter = reporter
        self._synchronous = config.mode.publish_every is None
        self._provenance = origin.provenance
        self._visits = Visits(config, data.train)
        self._health = Health()
        self._held_out = data.held_out.prompts
        rollouts = config.prompts_per_iteration * config.rollouts_per_prompt
        is_known = self._synchronous and answers_at_once(config) == config.rollouts_per_prompt
        self._collecting = Collecting(reporter, rollouts if is_known else None)
        self._learning: Phase | None = None
        self._peak_rate = config.optimizer.learning_rate
        self._accuracy: float | None = None
        self._sealing: asyncio.Task[Path] | None = None

    async def begin(self) -> None:
        """Load the checkpoint of a resumed run, or evaluate the initial model."""
        named = asdict(self._provenance)
        self._reporter.stamp({key: value for key, value in named.items() if isinstance(value, str)})
        if self._saved is None:
            accuracy = (await self._evaluate())["eval/greedy"]
            self._health.plateau(accuracy, self._config.health)
            self._reporter.end_iteration(0)
            return
        with self._reporter.phase("load"):
            await self._workers.load(self._saved.folder)
            self._recall(self._saved.standing.run)
            # new engines: what they make of the weights was not verified yet, whatever the version
            await self._workers.publish(self.progress.version, self._probes(1))
        self._collecting.look((await self._workers.snapshot()).totals)

    async def collect(self, group_ids: Sequence[int]) -> None:
        iteration = self._visits.iteration_of(group_ids[0])
        if self._visits.needs_ledger(iteration):
            self._visits.plan(iteration, await self._workers.ledger())
        tickets = [
            replace(self._visits.ticket(group_id), temperature=self._health.temperature)
            for group_id in group_ids
        ]
        self._collecting.order_out(tickets[0].iteration)
        await self._workers.collect(tickets)
        self._collecting.order_back((await self._workers.snapshot()).totals)

    async def backlog(self) -> Backlog:
        seen = await self._workers.snapshot()
        return Backlog(seen.uses_left, seen.steps_left, seen.consumed)

    async def learn(self, steps: int, schedule: tuple[float, float]) -> None:
        reach("driver.learn")
        self._accuracy = None
        if self._learning is None:
            await self._begin_learning()
        pace = Pace(self.progress.steps, steps, self._progress_of(schedule), self._peak_rate)
        metrics = await self._workers.learn(pace)
        self._log(metrics, self._iteration, self.progress.steps + steps)
        self._reporter.advance("learn", steps, metrics)

    async def _begin_learning(self) -> None:
        """Before the first step of an iteration, or of a run that goes on in the middle of one."""
        config = self._config
        seen = await self._workers.snapshot()
        self._peak_rate = peak_rate(config, seen.live)
        if config.algorithm.start is Start.initial and self.progress.unpublished == 0:
            await self._workers.restart()
        place = config.placement
        if place.infer.sleep_level or place.reference.offload:
            await self._workers.rest()
        left = seen.steps_left if self._synchronous else None
        self._learning = self._reporter.phase("learn", left, self._iteration)

    def _progress_of(self, schedule: tuple[float, float]) -> tuple[float, float]:
        """Shares of the learning-rate schedule: of the run, or of an iteration that trains anew."""
        if self._config.algorithm.start is Start.last:
            return schedule
        start, end = (share * self._config.iterations - self.progress.iteration for share in schedule)
        return max(0.0, start), min(1.0, end)

    async def publish(self, version: int) -> None:
        reach("driver.publish")
        self._end_learning()
        with self._reporter.phase("publish", iteration=self._iteration):
            metrics = await self._workers.publish(version, self._probes(version))
        metrics["policy/version"] = float(version)
        self._reporter.log(metrics, self._iteration, self.progress.steps)

    def _probes(self, version: int) -> list[tuple[int, ...]]:
        """Prompts that verify the push of `version`; none unless its turn has come."""
        every = self._config.health.verify_push_every
        if every == 0 or (version - 1) % every:
            return []
        return [prompt.token_ids for prompt in self._held_out[:PROBES]]

    async def finish_iteration(self, iteration: int) -> None:
        """Count, evaluate and save; `iteration` is complete, 1 is the first."""
        self._end_learning()
        book = await self._workers.book(iteration)
        seen = await self._workers.snapshot()
        ledger = await self._workers.ledger()
        metrics = rates(book, self._collecting.take_seconds()) | _ages(seen) | summary(ledger, iteration)
        self._log(metrics, iteration, self.progress.steps)
        self._visits.forget(iteration)
        reasons = f"rollouts/{file_of(iteration)} has the reasons"
        self._warn_of_abstentions(book, f"iteration {iteration}", reasons)
        if self._config.optimizer.reset_each_iteration:
            await self._workers.reset_optimizer()
        ends = self._look_after(metrics)
        self._accuracy = None
        if self._due(self._config.eval.every):
            self._accuracy = (await self._evaluate())["eval/greedy"]
            ends = ends or ("plateau" if self._health.plateau(self._accuracy, self._config.health) else None)
        if self._due(self._config.checkpoint.every):
            await self.save()
        self._reporter.end_iteration(iteration)
        if ends is not None and iteration < self._config.iterations:
            raise Stopped(ends)

    def _look_after(self, rates: Metrics) -> str | None:
        """Act on a collapse; returns the reason if the run is to end."""
        options = self._config.health
        if (problem := self._health.collapse(rates, options)) is None:
            return None
        logger.warning("sampling collapses: %s; see health in config.py for what can be done.", problem)
        if options.on_collapse is OnCollapse.raise_temperature:
            raised = self._health.raise_temperature(self._config.sampling.temperature, options)
            logger.warning("training answers are sampled at temperature %.3g from now on.", raised)
        return "collapsed" if options.on_collapse is OnCollapse.stop else None

    async def save(self) -> None:
        """Write a checkpoint. It is brought to the disk while the run goes on.

        Raises:
            SaveFailed: this one could not be written, or the one before could not be completed.
        """
        await self.settle()
        with self._reporter.phase("save", iteration=self.progress.iteration):
            folder = checkpoint.draft(self._run_dir, self.progress.steps)
            with checkpoint.disk_errors(folder):
                await self._workers.save(folder)
        standing = Standing(
            replace(self.progress),
            self._provenance,
            redact(to_plain(self._config)),
            self._reporter.events,
            self._accuracy,
            {"plans": self._visits.plans, "health": asdict(self._health)},
        )
        sealing = asyncio.to_thread(checkpoint.seal, folder, standing, self._config.checkpoint)
        self._sealing = asyncio.create_task(sealing)

    async def settle(self) -> None:
        """Wait until the last checkpoint is whole."""
        if self._sealing is not None:
            sealing, self._sealing = self._sealing, None
            await sealing

    def _recall(self, state: dict[str, Any]) -> None:
        """What `save` wrote of this class itself."""
        self._visits.plans = {int(iteration): plan for iteration, plan in state["plans"].items()}
        self._health = Health(**state["health"])

    async def watch(self) -> None:
        """Keep the display alive while groups come in."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._collecting.look((await self._workers.snapshot()).totals)

    async def _evaluate(self) -> Metrics:
        config, iteration = self._config, self.progress.iteration
        verdicts: list[Verdict] = []

        async def answer(prompts: Sequence[Prompt], temperature: float, seed: int) -> Judged:
            judged = await self._workers.answer(prompts, temperature, seed)
            self._reporter.advance("evaluate", len(judged))
            verdicts.extend(verdict for _, verdict in judged)
            return judged

        answers = len(rounds_of(config)) * len(self._held_out)
        with self._reporter.phase("evaluate", answers, iteration):
            metrics = await evaluate(answer, self._held_out, config)
        self._log(metrics, iteration, self.progress.steps)
        reasons = Counter(verdict.reason for verdict in verdicts if verdict.abstains).most_common(3)
        self._warn_of_abstentions(
            count_verdicts(verdicts),
            f"evaluation after iteration {iteration}",
            f"the commonest reasons: {', '.join(f'{reason} ({n:,})' for reason, n in reasons)}",
        )
        return metrics

    def _warn_of_abstentions(self, book: Tally, where: str, reasons: str) -> None:
        if problem := alarm(book):
            deadline = self._config.grading.deadline
            logger.warning(
                "%s: %s; raise grading.deadline (%g s) against timeouts; %s.",
                where,
                problem,
                deadline,
                reasons,
            )

    def _log(self, metrics: Metrics, iteration: int, step: int) -> None:
        self._reporter.log(metrics | {"policy/version": float(self.progress.version)}, iteration, step)

    def _end_learning(self) -> None:
        if self._learning is not None:
            self._learning.close()
            self._learning = None

    def _due(self, every: int) -> bool:
        done, last = self.progress.iteration, self.progress.iteration == self._config.iterations
        return last or (every > 0 and done % every == 0)

    @property
    def _iteration(self) -> int:
        """The iteration that is learned now, 1 for the first."""
        return min(self.progress.iteration + 1, self._config.iterations)


def _ages(seen: Snapshot) -> Metrics:
    return {
        "policy/age_max": float(seen.oldest_age),
        "buffer/live": float(seen.live),
        "buffer/expired": float(seen.expired),
    }
