"""Which rows of the buffer an optimizer step reads: a row of its `sampler` key each."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import ceil
from typing import Any, TypeAlias

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import PrioritizedSampler, RandomSampler
from torchrl.data.replay_buffers.samplers import Sampler as TorchRLSampler
from torchrl.data.replay_buffers.storages import Storage

from expert_iteration.batching import PASS_RATE, POLICY_VERSION, REWARD
from expert_iteration.choices import Priority, Sampler
from expert_iteration.config import RunConfig
from expert_iteration.segment_trees import prioritized_sampler

Tally: TypeAlias = Counter[int]

PRIORITY_FLOOR = 0.01
"""Added to every priority, so that each row is read now and then."""


class Slots:
    """Policy version and number of reads of the row in each storage slot."""

    def __init__(self) -> None:
        self.changes = 0
        """How often rows came or went."""
        self.clear()

    def clear(self) -> None:
        self.changes += 1
        self._used = 0
        # twice as long whenever they are full, so that a row costs the same however many there are
        self._versions = torch.empty(0, dtype=torch.int64)
        self._reads = torch.empty(0, dtype=torch.int64)
        self.by_version: Tally = Counter()
        """Policy version -> rows."""
        self.by_reads: Tally = Counter()
        """Number of reads -> rows."""

    def __len__(self) -> int:
        return self._used

    @property
    def versions(self) -> Tensor:
        return self._versions[: self._used]

    @property
    def reads(self) -> Tensor:
        """Not to be changed, but by the methods below."""
        return self._reads[: self._used]

    def write(self, slots: Tensor, versions: Tensor) -> None:
        """New rows stand in `slots`."""
        self.changes += 1
        written = slots.unique()
        self._forget(written[written < self._used])
        self._make_room(int(written.max()) + 1)
        self._versions[slots] = versions
        self._reads[written] = 0
        self.by_version.update(self._versions[written].tolist())
        self.by_reads[0] += len(written)

    def read(self, slots: Tensor) -> None:
        """The rows in `slots` are read once more, those that stand there twice two times."""
        read = slots.unique()
        _subtract(self.by_reads, self._reads[read])
        self._reads.index_add_(0, slots, torch.ones_like(slots))
        self.by_reads.update(self._reads[read].tolist())

    def count_reads(self, reads: Tensor) -> None:
        """All rows were read so often, int64 [rows]."""
        self.changes += 1
        self._reads[: self._used] = reads
        self.by_reads = Counter(reads.tolist())

    def _forget(self, slots: Tensor) -> None:
        _subtract(self.by_version, self._versions[slots])
        _subtract(self.by_reads, self._reads[slots])

    def _make_room(self, size: int) -> None:
        if size > len(self._reads):
            more = torch.zeros(max(size, 2 * len(self._reads)) - len(self._reads), dtype=torch.int64)
            self._versions, self._reads = torch.cat([self._versions, more]), torch.cat([self._reads, more])
        self._used = max(self._used, size)


def _subtract(counts: Tally, values: Tensor) -> None:
    """Without keys that count nothing."""
    for value, number in Counter(values.tolist()).items():
        counts[value] -= number
        if not counts[value]:
            del counts[value]


class LeastReadSampler(RandomSampler):
    """Sampling without replacement: oldest policy version first, then least read, then at random.

    So the rows that would grow too old are used up before those that can wait, which is what the
    scheduler counts on when it lets collectors run ahead.

    TorchRL's `SamplerWithoutReplacement` forgets what it has drawn whenever the storage grows or
    shrinks, as it always does in asynchronous training. Here the reads of each row are the only
    memory, so every row is read exactly `epochs` times, whatever happens between two draws.

    With `whole_passes` a batch never spans two passes over the rows: the last one of a pass may be
    smaller, as in a data loader. A pass is drawn at once, and anew only when rows come or go. Without, a
    batch is filled up with rows that were read more often, and each is drawn by itself.
    """

    def __init__(self, slots: Slots, epochs: int, whole_passes: bool) -> None:
        self._slots = slots
        self._epochs = epochs
        self._whole_passes = whole_passes
        self._pass = torch.empty(0, dtype=torch.int64)
        """Slots that are left of a pass, in order."""
        self._drawn_at = -1
        """Changes of the slots when it was drawn."""

    @property
    def order(self) -> list[int]:
        """Slots that are left of the present pass, for a checkpoint; none if the next draw begins one."""
        return self._pass.tolist() if self._drawn_at == self._slots.changes else []

    def go_on(self, order: Sequence[int]) -> None:
        """Take up a pass whose `order` was that."""
        self._pass, self._drawn_at = torch.tensor(order, dtype=torch.int64), self._slots.changes

    def sample(self, storage: Storage, batch_size: int) -> tuple[Tensor, dict[str, Any]]:
        """At most `batch_size` slots, all different."""
        assert len(self._slots) == len(storage)
        if not self._whole_passes:
            return self._ordered(self._epochs)[:batch_size], {}
        if self._drawn_at != self._slots.changes or not len(self._pass):
            self._pass, self._drawn_at = self._ordered(min(self._slots.by_reads) + 1), self._slots.changes
        batch, self._pass = self._pass[:batch_size], self._pass[batch_size:]
        return batch, {}

    def _ordered(self, limit: int) -> Tensor:
        """The slots of all rows that were read fewer than `limit` times, the most urgent ones first."""
        reads = self._slots.reads
        usable = (reads < limit).nonzero().squeeze(1)
        shuffled = usable[torch.randperm(len(usable), generator=self._rng)]
        urgency = self._slots.versions[shuffled] * self._epochs + reads[shuffled]
        return shuffled[urgency.argsort(stable=True)]

    def batches_left(self, batch_size: int) -> int:
        """Fewest batches until every row was read `epochs` times; a synchronous run takes just these."""
        rows = self._slots.by_reads
        if not rows:
            return 0
        if self._whole_passes:
            passes = accumulate(rows[done] for done in range(self._epochs))
            return sum(ceil(unread / batch_size) for unread in passes)
        left = sum((self._epochs - done) * number for done, number in rows.items())
        return max(ceil(left / batch_size), self._epochs - min(rows))


def sampler_of(config: RunConfig, slots: Slots, whole_passes: bool) -> TorchRLSampler:
    """What `buffer.sampler` names; with `whole_passes`, one without replacement ends them evenly."""
    buffer = config.buffer
    if buffer.sampler is Sampler.without_replacement:
        return LeastReadSampler(slots, config.epochs, whole_passes)
    if buffer.sampler is Sampler.uniform:
        return RandomSampler()
    return prioritized_sampler(buffer.capacity, buffer.priority_alpha, buffer.priority_beta)


PRIORITIES: dict[Priority, Callable[[TensorDictBase, int], float]] = {
    Priority.reward: lambda row, _: float(row[REWARD]),
    Priority.difficulty: lambda row, _: 1 - float(row[PASS_RATE]),
    Priority.recency: lambda row, version: 1 / (1 + max(0, version - int(row[POLICY_VERSION]))),
}
"""(row, policy version of the trainer) -> priority, before the floor."""


def weight_scale(sampler: PrioritizedSampler, rows: int) -> float:
    """Factor from TorchRL's importance weights, whose largest is 1, to (rows * P)^-beta.

    P is the probability that a draw hits the row; at beta 1 these have a mean of 1. With the former, the
    loss would shrink with the smallest priority in the buffer.
    """
    total, smallest = sampler._sum_tree.query(0, rows), sampler._min_tree.query(0, rows)
    return float((total / (rows * smallest)) ** sampler._beta)
