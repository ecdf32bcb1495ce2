"""Which rows an optimizer step reads, and what it costs to know."""

from collections import Counter
from itertools import count, pairwise
from random import Random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchrl.data import LazyStackStorage, TensorDictReplayBuffer

from expert_iteration.batching import stack
from expert_iteration.samplers import LeastReadSampler, Slots
from expert_iteration.scheduler import Laws
from tests.test_buffer import rows_of


class Watched(Slots):
    """Counts how often somebody goes through all rows."""

    looks = 0

    @property
    def reads(self) -> Tensor:
        self.looks += 1
        return super().reads


def pass_of(rows: int, batch_size: int) -> tuple[list[list[int]], int]:
    """The batches of one pass, and how often all rows were looked at for them."""
    slots = Watched()
    sampler = LeastReadSampler(slots, epochs=1, whole_passes=True)
    replay = TensorDictReplayBuffer(storage=LazyStackStorage(rows), sampler=sampler, batch_size=batch_size)
    slots.write(replay.extend(stack(rows_of(0, rows))), torch.zeros(rows, dtype=torch.int64))
    batches = []
    while left := sampler.batches_left(batch_size):
        _, info = replay.sample(batch_size, return_info=True)
        slots.read(info["index"])
        batches.append(info["index"].tolist())
        assert sampler.batches_left(batch_size) == left - 1
    return batches, slots.looks


def test_a_pass_looks_at_all_rows_once_however_many_batches_it_has() -> None:
    few, looks_of_few = pass_of(rows=40, batch_size=40)
    many, looks_of_many = pass_of(rows=40, batch_size=2)
    assert (len(few), len(many)) == (1, 20)
    assert looks_of_few == looks_of_many == 1
    assert sorted(slot for batch in many for slot in batch) == list(range(40))


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_counts_of_the_slots_are_those_of_their_rows(seed: int) -> None:
    lot, slots = Random(seed), Slots()
    for _ in range(12):
        if lot.random() < 0.1:
            slots.clear()
        elif len(slots) and lot.random() < 0.5:
            slots.read(torch.tensor([lot.randrange(len(slots)) for _ in range(4)]))
        else:
            places = torch.tensor([lot.randrange(len(slots) + 3) for _ in range(3)])
            gap = range(len(slots), int(places.max()))  # a storage leaves no slot out
            places = torch.cat([places, torch.tensor(list(gap), dtype=torch.int64)])
            slots.write(places, torch.randint(0, 3, (len(places),)))
        assert slots.by_reads == Counter(slots.reads.tolist())
        assert slots.by_version == Counter(slots.versions.tolist())
        assert all(slots.by_reads.values()) and all(slots.by_version.values())


def test_a_row_is_written_and_counted_without_a_look_at_the_others() -> None:
    slots = Watched()
    passes = [LeastReadSampler(slots, epochs=2, whole_passes=whole) for whole in (False, True)]
    for slot in range(50):
        slots.write(torch.tensor([slot]), torch.tensor([slot // 10]))
        assert [sampler.batches_left(1) for sampler in passes] == [2 * (slot + 1)] * 2
    assert slots.looks == 0 and min(slots.by_version) == 0


def test_slots_are_moved_ever_more_rarely_as_they_grow_in_number() -> None:
    slots, places = Slots(), []
    for slot in range(1000):
        slots.write(torch.tensor([slot]), torch.tensor([0]))
        places.append(slots.reads.data_ptr())
    assert sum(here != there for here, there in pairwise(places)) <= 10


def test_orders_are_cut_as_they_are_needed() -> None:
    laws = Laws(
        iterations=1, groups_per_iteration=10**9, batch_size=1, uses_per_group=1, groups_per_request=3
    )
    orders = laws.requests(count())
    assert [next(orders), next(orders)] == [[0, 1, 2], [3, 4, 5]]
