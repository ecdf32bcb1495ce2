"""Kept rollouts, between selection and the optimizer: a TorchRL replay buffer under two laws.

1. A row is read `epochs` times on average: reads < epochs x writes, or there is nothing to learn from.
2. No row older than `max_staleness` policy versions is ever drawn.

At any time reads + forfeited + reads_left = epochs x written.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import LazyStackStorage, PrioritizedSampler, TensorDictReplayBuffer

from expert_iteration.adaptive import batch_size
from expert_iteration.algorithms import algorithm_of
from expert_iteration.batching import POLICY_VERSION, WEIGHT, stack
from expert_iteration.choices import Priority
from expert_iteration.config import RunConfig
from expert_iteration.samplers import (
    PRIORITIES,
    PRIORITY_FLOOR,
    LeastReadSampler,
    Slots,
    sampler_of,
    weight_scale,
)
from expert_iteration.selection import Fate
from expert_iteration.selector import TopKRewardSelector

_SLOT = "index"
"""Where TorchRL writes the storage slot into a row."""


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """What the buffer holds now, and totals of the run."""

    live: int
    """Rows in the storage."""
    reads_left: int
    steps_left: int
    oldest_age: int
    """Of the live rows, in policy versions."""
    written: int
    reads: int
    expired: int
    """Rows that were lost before they were read `epochs` times: too old, or overwritten."""
    forfeited: int
    """Reads that were lost with them."""


@dataclass
class Books:
    """Counters of the run."""

    version: int = 0
    written: int = 0
    reads: int = 0
    expired: int = 0
    forfeited: int = 0
    last_step: int = -1
    """Optimizer step that was drawn last."""


class RolloutBuffer:
    """Takes groups from collectors, and hands the kept rows to the trainer ranks.

    A synchronous run (`mode.max_staleness` of 0) stores groups in the order of their ids, whatever the
    order of arrival, and so does not depend on timing. All randomness comes from `config.seed`.
    """

    def __init__(self, config: RunConfig) -> None:
        synchronous = config.mode.max_staleness == 0
        self._epochs = config.epochs
        self._config = config
        self._accumulate = config.algorithm.accumulate
        self._max_staleness = config.mode.max_staleness
        self._books = Books()
        self._batches: dict[int, tuple[list[TensorDictBase], set[int]]] = {}
        """Optimizer step -> its global batch, and the ranks that have not fetched their rows."""
        self._slots = Slots()
        self._selector = TopKRewardSelector(
            config.selection, config.seed, algorithm_of(config).keep, in_order=synchronous
        )
        self._generator = torch.Generator().manual_seed(config.seed)
        self._replay = TensorDictReplayBuffer(
            storage=LazyStackStorage(config.buffer.capacity),
            sampler=sampler_of(config, self._slots, synchronous),
            transform=self._selector,
            generator=self._generator,
        )

    def add(self, group_id: int, rows: Sequence[TensorDictBase]) -> dict[int, Fate]:
        """Take one group, with no rows if all of its answers abstained.

        Returns:
            For each rollout index whether it was kept, or why not; empty until the group is complete.
        """
        if not rows:
            self._selector.skip(group_id)
        # an empty extension lets the groups in that waited for this one
        arriving = stack(rows) if rows else TensorDict(batch_size=[0])
        if len(slots := self._replay.extend(arriving).flatten()):
            self._give_up(slots[slots < len(self._slots)])
            self._books.written += len(slots)
            self._register(slots)
            if not self._accumulate:
                self._drop_stale()
        return self._selector.fates.get(group_id, {})

    def missing(self, group_ids: Sequence[int]) -> list[int]:
        """Those of `group_ids` that have not come yet."""
        return [group_id for group_id in group_ids if not self.received(group_id)]

    def received(self, group_id: int) -> bool:
        """Whether the group has come."""
        return self._selector.received(group_id)

    def set_version(self, version: int) -> None:
        """The trainer stands at policy version `version`: rows that are now too old leave."""
        assert version >= self._books.version, f"policy version went back to {version}"
        if version == self._books.version:
            return  # a resumed run brings its engines to where it stood
        self._books.version = version
        if self._config.buffer.priority is Priority.recency:
            self._prioritize(torch.arange(len(self._slots)))
        if self._accumulate:
            self._renew()
        else:
            self._drop_stale()

    def reads_left(self) -> int:
        """Reads that may still be made of the rows held; 0: no optimizer step before new rows."""
        return self._epochs * self._books.written - self._books.reads - self._books.forfeited

    def steps_left(self) -> int:
        """Optimizer steps that `reads_left` make, if nothing is added meanwhile: exact."""
        sampler = self._replay.sampler
        if isinstance(sampler, LeastReadSampler):
            return sampler.batches_left(self._batch_size)
        return ceil(self.reads_left() / self._batch_size)

    @property
    def _batch_size(self) -> int:
        return batch_size(self._config, len(self._slots))

    def draw(self, step: int, rank: int = 0, world_size: int = 1) -> list[TensorDictBase]:
        """The rows of optimizer step `step` for one rank.

        The first rank to ask draws the batch of all: `batch_size` rows, or fewer when the pass or the
        reads end. Rank r gets every `world_size`-th row from r on, which may be none. A prioritized
        buffer puts importance weights into the rows.
        """
        if step not in self._batches:
            last = self._books.last_step
            assert step > last, f"optimizer step {step} was drawn before; the last one was {last}"
            self._batches[step] = self._sample(), set(range(world_size))
            self._books.last_step = step
        rows, waiting = self._batches[step]
        waiting.discard(rank)
        if not waiting:
            del self._batches[step]
        return rows[rank::world_size]

    def status(self) -> BufferStatus:
        return BufferStatus(
            live=len(self._slots),
            reads_left=self.reads_left(),
            steps_left=self.steps_left(),
            oldest_age=self._oldest_age,
            written=self._books.written,
            reads=self._books.reads,
            expired=self._books.expired,
            forfeited=self._books.forfeited,
        )

    def state(self) -> tuple[dict[str, Any], list[TensorDictBase]]:
        """Everything that decides what happens next: plain values for JSON, and rows.

        Call it between two optimizer steps, when every rank has its rows.
        """
        assert not self._batches, f"some rank has not fetched its rows of step {list(self._batches)}"
        (selector, held), sampler = self._selector.state(), self._replay.sampler
        plain = {
            "books": asdict(self._books),
            "row_reads": self._slots.reads.tolist(),
            "order": sampler.order if isinstance(sampler, LeastReadSampler) else [],
            "cursor": self._cursor(),
            "generator": bytes(self._generator.get_state().tolist()).hex(),
            "selector": selector,
        }
        live = [row.exclude(_SLOT, WEIGHT) for row in self._rows(torch.arange(len(self._slots)))]
        return plain, [*live, *held]

    def restore(self, plain: dict[str, Any], rows: Sequence[TensorDictBase]) -> None:
        """Go on from what `state` returned: the same draws follow."""
        self._books = Books(**plain["books"])
        live = len(plain["row_reads"])
        self._refill(rows[:live], torch.tensor(plain["row_reads"]))
        self._replay.writer.load_state_dict({"_cursor": plain["cursor"]})
        if plain["order"]:
            self._replay.sampler.go_on(plain["order"])
        self._selector.restore(plain["selector"], rows[live:])
        self._generator.set_state(torch.tensor(list(bytes.fromhex(plain["generator"])), dtype=torch.uint8))

    def _sample(self) -> list[TensorDictBase]:
        assert self.reads_left() > 0, "every row was read `epochs` times; nothing is left to draw"
        size = min(self._batch_size, self.reads_left())
        batch, info = self._replay.sample(size, return_info=True)
        slots = info["index"]
        self._slots.read(slots)
        self._books.reads += len(slots)
        rows = [row.exclude(_SLOT) for row in batch.unbind(0)]
        if isinstance(self._replay.sampler, PrioritizedSampler):
            scale = weight_scale(self._replay.sampler, len(self._slots))
            for row in rows:
                row[WEIGHT] = row[WEIGHT] * scale
        return rows

    def _register(self, slots: Tensor) -> None:
        rows = self._rows(slots)
        self._slots.write(slots, torch.tensor([int(row[POLICY_VERSION]) for row in rows]))
        self._prioritize(slots)

    def _prioritize(self, slots: Tensor) -> None:
        """Give the rows in `slots` their priorities, if the sampler has any use for them."""
        if isinstance(self._replay.sampler, PrioritizedSampler) and len(slots):
            value = PRIORITIES[self._config.buffer.priority]
            found = [value(row, self._books.version) for row in self._rows(slots)]
            self._replay.update_priority(slots, torch.tensor(found).clamp(min=0) + PRIORITY_FLOOR)

    @property
    def _oldest_age(self) -> int:
        """Policy versions that the oldest row is behind; 0 if there is none."""
        return self._books.version - min(self._slots.by_version, default=self._books.version)

    def _drop_stale(self) -> None:
        if self._oldest_age <= self._max_staleness:
            return
        stale = self._slots.versions < self._books.version - self._max_staleness
        self._give_up(stale.nonzero().squeeze(1))
        # oldest first, so that a full storage goes on overwriting the oldest
        arrival = torch.arange(len(stale)).roll(-self._cursor())
        fresh = arrival[~stale[arrival]]
        self._refill(self._rows(fresh), self._slots.reads[fresh])

    def _renew(self) -> None:
        """Every row counts as written anew: it is read `epochs` times more, together with the next ones."""
        self._books.forfeited += self.reads_left()
        self._books.written += len(self._slots)
        self._slots.count_reads(torch.zeros_like(self._slots.reads))

    def _give_up(self, slots: Tensor) -> None:
        """Count the rows in `slots`, which leave, and the reads that they still had."""
        unread = (self._epochs - self._slots.reads[slots]).clamp(min=0)
        self._books.expired += int((unread > 0).sum())
        # with replacement, other rows may have been read more than `epochs` times in their stead
        self._books.forfeited += min(int(unread.sum()), self.reads_left())

    def _refill(self, rows: Sequence[TensorDictBase], reads: Tensor) -> None:
        """Make `rows` the whole contents; they were selected and counted before."""
        self._replay.empty()
        self._slots.clear()
        if rows:
            self._register(self._replay.writer.extend(stack(rows)))
            self._slots.count_reads(reads)

    def _rows(self, slots: Tensor) -> list[TensorDictBase]:
        return [self._replay.storage.get(slot) for slot in slots.tolist()]

    def _cursor(self) -> int:
        """Slot that is written next."""
        return self._replay.writer.state_dict()["_cursor"]
