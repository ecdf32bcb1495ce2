"""One trainer rank: draws its shard of each batch, takes the step, pushes the weights."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Protocol

import torch
from tensordict import TensorDictBase

from expert_iteration.agreement import Mismatch, Sampler, TokenIds, verify
from expert_iteration.config import RunConfig
from expert_iteration.faults import reach
from expert_iteration.learner import Learner
from expert_iteration.timeline import Timeline
from expert_iteration.transports import transport_of
from expert_iteration.types import Metrics, Pace
from expert_iteration.weights import DamagedWeights, EngineClient, HostTransport, PushReport, push

SUMS = ("train/skipped", "train/spikes", "train/tokens")


class BatchSource(Protocol):
    """Where batches come from: the buffer, here or in another process."""

    def draw(self, step: int, rank: int, world_size: int) -> Sequence[TensorDictBase]:
        """This rank's shard of the global batch of optimizer step number `step`."""
        ...


class Published(EngineClient, Sampler, Protocol):
    """Engines that take weights, and show what they do with them."""


class Trainer:
    def __init__(
        self,
        config: RunConfig,
        device: str,
        source: BatchSource,
        rank: int = 0,
        timeline: Timeline | None = None,
    ) -> None:
        self._config = config
        self._ranks = config.placement.train.devices
        self._transport = transport_of(config)
        self._learner = Learner(config, device, self._ranks)
        self._source = source
        self._rank = rank
        self._timeline = timeline or Timeline()

    def learn(self, pace: Pace) -> Metrics:
        """Take the optimizer steps of `pace`.

        Returns:
            the mean of each of the learner's metrics, but the sum of those in SUMS.
        """
        (start, end), steps = pace.progress, pace.steps
        taken = []
        for index, rows in enumerate(self._batches(pace.first_step, steps)):
            with self._timeline.span("learn"):
                done = start + (end - start) * index / steps
                taken.append(self._learner.learn(rows, done, pace.learning_rate))
        means = {key: fmean(metrics[key] for metrics in taken) for key in taken[0]}
        return means | {key: means[key] * steps for key in SUMS}

    def publish(self, engines: Sequence[Published], version: int, probes: Sequence[TokenIds] = ()) -> Metrics:
        """Bring the trained weights to every engine, as policy `version`.

        The first rank does, and every other one must be called as well. Where there are `probes`, prompts
        with room for an answer, the push is verified by them.

        Raises:
            Mismatch: an engine does not hold what the trainer does.
        """
        policy, self._learner.version = self._learner.policy, version
        if self._rank > 0:
            policy.follow()
            return {}
        with policy.leading():
            reach("trainer.push")
            metrics = self._push(engines, version, bool(probes))
            if probes:
                with self._timeline.span("verify"):
                    metrics |= verify(engines, policy.score, probes, version, self._config)
        return metrics

    def _push(self, engines: Sequence[Published], version: int, checked: bool) -> Metrics:
        transport = self._transport
        if checked and isinstance(transport, HostTransport):
            transport = replace(transport, checksums=True)
        if self._config.placement.infer.sleep_level:
            # what the allocator keeps for later is memory that the engine wakes up in
            torch.cuda.empty_cache()
        # closed when a push breaks, so that the other ranks do not wait in the midst of a gathering
        with self._timeline.span("push"), closing(self._learner.policy.named_weights()) as weights:
            try:
                return metrics_of(push(weights, engines, version, transport))
            except DamagedWeights as error:
                raise Mismatch(str(error)) from error

    def reset_optimizer(self) -> None:
        self._learner.reset_optimizer()

    def restart(self) -> None:
        self._learner.restart()

    def save(self, folder: Path) -> None:
        """Write this rank's part of a checkpoint."""
        self._learner.save(folder, self._rank)

    def load(self, folder: Path) -> None:
        self._learner.load(folder)

    def _batches(self, first: int, count: int) -> Iterator[Sequence[TensorDictBase]]:
        """Shards of `count` steps; the next one is fetched while the caller works on this one."""
        with ThreadPoolExecutor(1) as fetcher:
            ahead = fetcher.submit(self._source.draw, first, self._rank, self._ranks)
            for step in range(first + 1, first + count + 1):
                with self._timeline.span("draw"):
                    rows = ahead.result()
                if step < first + count:
                    ahead = fetcher.submit(self._source.draw, step, self._rank, self._ranks)
                reach("trainer.step")
                yield rows


def metrics_of(report: PushReport) -> Metrics:
    """What a push took, and what it has done to answers that were under way."""
    effect = report.interruption
    return {
        "push/seconds": report.seconds,
        "push/mebibytes": report.bytes / 2**20,
        "push/stalled_seconds": effect.stalled,
        "push/aborted": float(effect.aborted),
        "push/resumed": float(effect.resumed),
    }
