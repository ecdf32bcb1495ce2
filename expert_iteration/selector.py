"""The transform that lets only selected answers into the replay buffer."""

from collections.abc import Sequence
from typing import Any

from tensordict import TensorDictBase
from torchrl.envs.transforms import Transform

from expert_iteration.algorithms import Keep
from expert_iteration.batching import (
    FINGERPRINT,
    GROUP_ID,
    GROUP_SIZE,
    PROMPT_ID,
    RESPONSE,
    REWARD,
    ROLLOUT_INDEX,
    SAMPLED,
    SUCCESS,
    TOKENS,
    stack,
)
from expert_iteration.choices import Prefer
from expert_iteration.config import SelectionConfig
from expert_iteration.selection import Candidate, Fate, select
from expert_iteration.traces import runs


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

    def __init__(
        self,
        config: SelectionConfig,
        seed: int,
        keep: Keep = Keep.SUCCESSFUL,
        in_order: bool = False,
    ) -> None:
        super().__init__()
        self.next_group = 0
        """All groups below it were decided, and have left."""
        self.fates: dict[int, dict[int, Fate]] = {}
        """Of the groups that the last call decided: group id -> rollout index -> fate."""
        self._config = config
        self._seed = seed
        self._keep = keep
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
        candidates = [candidate_of(row, self._config.prefer) for row in group]
        fates = select(candidates, self._config, self._seed, self._keep)
        self.fates[group_id] = fates
        rows = {int(row[ROLLOUT_INDEX]): row for row in group}
        return [rows[index] for index in sorted(rows) if fates[index] is Fate.KEPT]

    def _leaving(self) -> list[TensorDictBase]:
        leaving: list[TensorDictBase] = []
        if not self._in_order:
            for group_id in self.fates:
                leaving += self._early[group_id]
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


def candidate_of(row: TensorDictBase, prefer: Prefer = Prefer.first) -> Candidate:
    """What selection may know of `row`; its runs of tokens only where `prefer` asks for them."""
    response_T = row[RESPONSE]
    tokens = row[TOKENS][response_T].tolist() if prefer is Prefer.most_diverse else []
    return Candidate(
        prompt_id=int(row[PROMPT_ID]),
        rollout_index=int(row[ROLLOUT_INDEX]),
        reward=float(row[REWARD]),
        success=bool(row[SUCCESS]),
        fingerprint=int(row[FINGERPRINT]),
        length=int(response_T.sum()),
        log_prob=float(row[SAMPLED].sum()) / max(1, int(response_T.sum())),
        runs=frozenset(runs(tokens)),
    )
