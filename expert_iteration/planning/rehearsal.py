"""A run without models: the real scheduler sets stages in motion that only count."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from expert_iteration.adaptive import batch_size, peak_rate
from expert_iteration.choices import Sampler, Start
from expert_iteration.config import RunConfig
from expert_iteration.laws import laws_of
from expert_iteration.scheduler import Backlog, Progress, Scheduler
from expert_iteration.schedules import rate_factor

Kept = Callable[[int], int]
"""Number of a visit -> answers of it that are trained on."""


@dataclass
class Counts:
    """What a run does."""

    kept: int = 0
    steps: int = 0
    used: int = 0
    """Samples read, each as often as it is learned."""
    pushes: int = 0
    evaluations: int = 1
    """The first one is before training."""
    checkpoints: int = 0
    warming: int = 0
    """Optimizer steps below the peak on account of the warm-up."""
    rates: list[float] = field(default_factory=list)
    """Learning rate at the first and the last step of each order to the learner."""


def evenly(mean: float) -> Kept:
    """`mean` answers of each visit on average, in whole numbers."""
    return lambda group_id: int((group_id + 1) * mean + 1e-9) - int(group_id * mean + 1e-9)


def rehearse(config: RunConfig, kept: Kept) -> Counts:
    """Count what a run does whose visits bring `kept` answers; none of them grows too old, none is lost.

    Raises:
        ConfigError: collectors and learner could wait for each other for ever.
    """
    laws, progress = laws_of(config), Progress()
    stages = CountingStages(config, kept, progress)
    asyncio.run(Scheduler(laws, stages, progress, range(laws.groups)).run())
    return stages.counts


def is_due(every: int, iteration: int, iterations: int) -> bool:
    """Whether what happens every so many iterations happens after `iteration`: at the end it always does."""
    return iteration == iterations or (every > 0 and iteration % every == 0)


class CountingStages:
    """`Stages` that take no time."""

    def __init__(self, config: RunConfig, kept: Kept, progress: Progress) -> None:
        self.counts = Counts()
        self._config = config
        self._kept = kept
        self._progress = progress
        self._synchronous = config.mode.publish_every is None
        whole = config.buffer.sampler is Sampler.without_replacement
        self._whole_passes = self._synchronous and whole
        self._held = 0
        """Samples in the buffer; of an asynchronous run, those that ever were."""
        self._left = 0
        """Reads that are left on them."""
        self._given_up = 0
        """Reads that a later iteration makes instead."""
        self._restarted_at = 0

    async def collect(self, group_ids: Sequence[int]) -> None:
        kept = sum(map(self._kept, group_ids))
        self.counts.kept += kept
        self._held += kept
        self._left += kept * self._config.epochs

    async def backlog(self) -> Backlog:
        size = self._batch_size
        passes, rest = divmod(self._left, self._pass)
        steps = -(-rest // size) + passes * -(-self._pass // size)
        return Backlog(self._left, steps, self.counts.used + self._given_up)

    async def learn(self, steps: int, schedule: tuple[float, float]) -> None:
        if self._config.algorithm.start is Start.initial and self._progress.unpublished == 0:
            self._restarted_at = self.counts.steps
        self._note_rates(steps, schedule)
        for _ in range(steps):
            # the last batch of a pass is smaller
            taken = min(self._batch_size, self._left % self._pass or self._pass, self._left)
            self._left -= taken
            self.counts.used += taken
        self.counts.steps += steps

    async def publish(self, version: int) -> None:
        self.counts.pushes = version
        if self._config.algorithm.accumulate:
            self._given_up += self._left
            self._left = self._held * self._config.epochs
        elif self._synchronous:
            self._held = 0

    async def finish_iteration(self, iteration: int) -> None:
        config = self._config
        self.counts.evaluations += is_due(config.eval.every, iteration, config.iterations)
        self.counts.checkpoints += is_due(config.checkpoint.every, iteration, config.iterations)

    @property
    def _batch_size(self) -> int:
        return batch_size(self._config, self._held)

    @property
    def _pass(self) -> int:
        """Reads after which a batch ends early: a pass over the samples held, or all that are left."""
        return max(1, self._held if self._whole_passes else self._left)

    def _note_rates(self, steps: int, schedule: tuple[float, float]) -> None:
        options, (begin, end) = self._config.optimizer, self._progress_of(schedule)
        first = self.counts.steps - self._restarted_at
        peak = peak_rate(self._config, self._held)
        for step in {0, steps - 1}:
            done = begin + (end - begin) * step / steps
            self.counts.rates.append(peak * rate_factor(options, first + step, done))
        self.counts.warming += max(0, min(options.warmup_steps - 1 - first, steps))

    def _progress_of(self, schedule: tuple[float, float]) -> tuple[float, float]:
        """Shares of the learning-rate schedule: of the run, or of an iteration that trains anew."""
        if self._config.algorithm.start is Start.last:
            return schedule
        begin, end = (share * self._config.iterations - self._progress.iteration for share in schedule)
        return max(0.0, begin), min(1.0, end)
