"""Which share of some GPUs should train, which should sample, and which should hold references."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from expert_iteration.algorithms import needs_reference
from expert_iteration.config import ConfigError, PlacementConfig, RunConfig
from expert_iteration.simulation.outcome import Outcome

MOST_RANKS = 64
"""Trainer ranks that are tried, at most: all of them sum their gradients in each step."""


@dataclass(frozen=True)
class Split:
    """Numbers of a placement."""

    train: int
    replicas: int
    references: int

    def of(self, config: RunConfig) -> RunConfig:
        """`config`, split so."""
        place = config.placement
        placement: PlacementConfig = replace(
            place,
            shared=False,
            train=replace(place.train, devices=self.train),
            infer=replace(place.infer, replicas=self.replicas),
            reference=replace(place.reference, devices=max(1, self.references)),
        )
        return replace(config, placement=placement)

    def overrides(self, config: RunConfig) -> str:
        """What to type."""
        words = (
            f"placement=split placement.train.devices={self.train} placement.infer.replicas={self.replicas}"
        )
        if config.placement.infer.tensor_parallel > 1:
            words += f" placement.infer.tensor_parallel={config.placement.infer.tensor_parallel}"
        return words + (f" placement.reference.devices={self.references}" if self.references else "")


def splits(config: RunConfig, gpus: int) -> list[Split]:
    """Splits worth a try: trainer ranks and references in powers of two, engines on all the rest.

    Raises:
        ConfigError: there is no GPU left for an engine.
    """
    parts = config.placement.infer.tensor_parallel
    found = [
        Split(ranks, (gpus - ranks - references) // parts, references)
        for references in (_powers(gpus) if needs_reference(config) else [0])
        for ranks in _powers(min(gpus, config.batch_size, MOST_RANKS))
        if gpus - ranks - references >= parts
    ]
    if not found:
        needed = 1 + parts + needs_reference(config)
        raise ConfigError(
            f"--suggest-split {gpus} cannot be split: a trainer, an engine (placement.infer.tensor_parallel "
            f"{parts}) and the references take {needed} GPUs; name more of them, or take placement=one_gpu."
        )
    return found


def _powers(most: int) -> Iterator[int]:
    """1, 2, 4, ... up to `most`."""
    power = 1
    while power <= most:
        yield power
        power *= 2


def ranked(config: RunConfig, gpus: int, time: Callable[[RunConfig], Outcome]) -> list[tuple[Split, Outcome]]:
    """Every split worth a try with what `time` says of it, fastest first.

    The neighbours of the fastest power of two are tried as well.

    Raises:
        ConfigError: there is no GPU left for an engine.
    """
    tried = {split: time(split.of(config)) for split in splits(config, gpus)}
    for _ in range(2):
        best = min(tried, key=lambda split: tried[split].seconds)
        for split in _neighbours(config, gpus, best):
            if split not in tried:
                tried[split] = time(split.of(config))
    return sorted(tried.items(), key=lambda item: item[1].seconds)


def _neighbours(config: RunConfig, gpus: int, split: Split) -> Iterator[Split]:
    parts = config.placement.infer.tensor_parallel
    for ranks in {split.train * 3 // 4, split.train * 5 // 4, split.train * 3 // 2}:
        replicas = (gpus - ranks - split.references) // parts
        if 1 <= ranks <= min(config.batch_size, MOST_RANKS) and replicas >= 1:
            yield replace(split, train=ranks, replicas=replicas)
