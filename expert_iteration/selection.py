"""Which answers of a group are trained on: a pure rule, and the TorchRL transform that applies it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any

from tensordict import TensorDictBase
from torchrl.envs.transforms import Transform

from expert_iteration.batching import (
    FINGERPRINT,
    GROUP_ID,
    GROUP_SIZE,
    PROMPT_ID,
    REWARD,
    ROLLOUT_INDEX,
    SUCCESS,
    stack,
)
from expert_iteration.config import SelectionConfig, Strategy


class Fate(StrEnum):
    """What selection did with an answer: kept, or why not."""

    KEPT = "kept"
    UNSUCCESSFUL = "unsuccessful"
    BELOW_MIN_REWARD = "below_min_reward"
    DUPLICATE = "duplicate"
    BEYOND_TOP_K = "beyond_top_k"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What selection may know of an answer."""

    prompt_id: int
    rollout_index: int
    reward: float
    success: bool
    fingerprint: int
    """Equal for answers that count as duplicates."""


def select(candidates: Iterable[Candidate], config: SelectionConfig, seed: int) -> dict[int, Fate]:
    """The fate of each answer of one group, by rollout index.

    An answer passes the gate when it is successful, or, if `config.min_reward` is a number, when its
    reward reaches that number. Those that pass are ranked: by reward for `top_k`, at random for
    `random`; ties are broken by a hash of (seed, prompt id, rollout index), so the order in which the
    answers arrive never matters. The first `config.top_k` distinct ones are kept.
    """
    fates: dict[int, Fate] = {}
    passing = []
    for candidate in candidates:
        assert candidate.rollout_index not in fates, f"rollout {candidate.rollout_index} came twice"
        fates[candidate.rollout_index] = fate = _at_the_gate(candidate, config)
        if fate is Fate.KEPT:
            passing.append(candidate)
    seen: set[int] = set()
    distinct = []
    for candidate in sorted(passing, key=lambda candidate: _rank(candidate, config, seed)):
        if config.deduplicate and candidate.fingerprint in seen:
            fates[candidate.rollout_index] = Fate.DUPLICATE
        else:
            distinct.append(candidate)
        seen.add(candidate.fingerprint)
    if config.top_k is not None:
        fates |= {candidate.rollout_index: Fate.BEYOND_TOP_K for candidate in distinct[config.top_k :]}
    return fates


def _at_the_gate(candidate: Candidate, config: SelectionConfig) -> Fate:
    if config.min_reward is None:
        return Fate.KEPT if candidate.success else Fate.UNSUCCESSFUL
    return Fate.KEPT if candidate.reward >= config.min_reward else Fate.BELOW_MIN_REWARD


def _rank(candidate: Candidate, config: SelectionConfig, seed: int) -> tuple[float, int, int]:
    """Lowest first; the rollout index only decides when two hashes collide."""
    reward = candidate.reward if config.strategy is Strategy.top_k else 0.0
    key = f"{seed}/{candidate.prompt_id}/{candidate.rollout_index}".encode()
    lot = int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
    return -reward, lot, candidate.rollout_index


class TopKRewardSelector(Transform):
    """A replay-buffer transform that lets only the kept answers of complete groups into the storage.

    `extend` the buffer with rows of the schema in batching.py, one at a time or many, in any order. A
    group is one visit of one prompt, keyed by `group_id`; it is decided, and forgotten, as soon as
    `group_size` rows of it have come. With `in_order` the kept rows also wait for their turn: they
    leave in the order of their group ids, so that the contents of the buffer do not depend on timing.

    Group ids count up from 0 without gaps; a group without rows is announced by `skip`.
    TorchRL's class of the same name keeps only rewards above the median of the group, so nothing when
    more than half of the answers are right, and never empties its queues, keyed by the prompt's text.
    """

    def __init__(self, config: SelectionConfig, seed: int, in_order: bool = False) -> None:
        super().__init__()
        self.next_group = 0
        """All groups below it were decided, and have left."""
        self.fates: dict[int, dict[int, Fate]] = {}
        """Of the groups that the last call decided: group id -> rollout index -> fate."""
        self._config = config
        self._seed = seed
        self._in_order = in_order
        self._partial: dict[int, list[TensorDictBase]] = {}
        self._early: dict[int, list[TensorDictBase]] = {}

    def received(self, group_id: int) -> bool:
        """Whether all rows of the group have come."""
        return group_id < self.next_group or group_id in self._early

    def skip(self, group_id: int) -> None:
        """The group has no rows: every answer abstained. Later groups leave with the next call."""
        assert not self.received(group_id), f"group {group_id} came twice"
        self._early[group_id] = []

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Sampling passes through unchanged."""
        return tensordict

    def _inv_call(self, tensordict: TensorDictBase) -> TensorDictBase | None:
        self.fates = {}
        for row in tensordict.unbind(0):
            self._take(row)
        leaving = self._leaving()
        return stack(leaving) if leaving else None

    def _take(self, row: TensorDictBase) -> None:
        group_id = int(row[GROUP_ID])
        assert not self.received(group_id), f"group {group_id} came twice"
        group = self._partial.setdefault(group_id, [])
        group.append(row)
        if len(group) == int(row[GROUP_SIZE]):
            self._early[group_id] = self._decide(group_id, self._partial.pop(group_id))

    def _decide(self, group_id: int, group: list[TensorDictBase]) -> list[TensorDictBase]:
        fates = select([candidate_of(row) for row in group], self._config, self._seed)
        self.fates[group_id] = fates
        rows = {int(row[ROLLOUT_INDEX]): row for row in group}
        return [rows[index] for index in sorted(rows) if fates[index] is Fate.KEPT]

    def _leaving(self) -> list[TensorDictBase]:
        leaving: list[TensorDictBase] = []
        if not self._in_order:
            for group_id, rows in self._early.items():
                leaving += rows
                self._early[group_id] = []
        while self.next_group in self._early:
            leaving += self._early.pop(self.next_group)
            self.next_group += 1
        return leaving

    def state(self) -> tuple[dict[str, Any], list[TensorDictBase]]:
        """All that it remembers: plain values for JSON, and the rows of unfinished or early groups."""
        plain = {
            "next_group": self.next_group,
            "partial": [[group_id, len(rows)] for group_id, rows in self._partial.items()],
            "early": [[group_id, len(rows)] for group_id, rows in self._early.items()],
        }
        return plain, [row for held in (self._partial, self._early) for rows in held.values() for row in rows]

    def restore(self, plain: dict[str, Any], rows: Sequence[TensorDictBase]) -> None:
        """Go on from what `state` returned."""
        remaining = iter(rows)
        self.next_group = plain["next_group"]
        self._partial = {group_id: [next(remaining) for _ in range(n)] for group_id, n in plain["partial"]}
        self._early = {group_id: [next(remaining) for _ in range(n)] for group_id, n in plain["early"]}


def candidate_of(row: TensorDictBase) -> Candidate:
    """What selection may know of `row`."""
    return Candidate(
        prompt_id=int(row[PROMPT_ID]),
        rollout_index=int(row[ROLLOUT_INDEX]),
        reward=float(row[REWARD]),
        success=bool(row[SUCCESS]),
        fingerprint=int(row[FINGERPRINT]),
    )
