"""The other actors, as an actor sees them: the interfaces of the plain classes, with a time limit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import ray

if TYPE_CHECKING:
    from tensordict import TensorDictBase

    from expert_iteration.collector import ScoredGroup
    from expert_iteration.types import Group


class RemoteArchive:
    """The archive for collectors (`add`) and trainers (`draw`)."""

    def __init__(self, actor: Any, limit: float) -> None:
        self._actor, self._limit = actor, limit

    def add(self, groups: "Sequence[ScoredGroup]", wasted: "Sequence[Group]" = ()) -> None:
        _get(self._actor.add.remote(groups, wasted), self._limit)

    def draw(self, step: int, rank: int, world_size: int) -> "Sequence[TensorDictBase]":
        rows = _get(self._actor.draw.remote(step, rank, world_size), self._limit)
        return cast("Sequence[TensorDictBase]", rows)


class RemoteReference:
    """The reference actors for collectors, asked in turn."""

    def __init__(self, actors: list[Any], limit: float) -> None:
        self._actors, self._limit, self._turn = actors, limit, 0

    def log_probs(self, rows: "Sequence[TensorDictBase]") -> list[Any]:
        self._turn += 1
        actor = self._actors[self._turn % len(self._actors)]
        return cast(list[Any], _get(actor.log_probs.remote(rows), self._limit))


class RemoteEngines:
    """All engines as one client of a push: each bucket is stored once and read by all."""

    def __init__(self, actors: list[Any], limit: float) -> None:
        self._actors, self._limit = actors, limit

    def start_update(self, version: int) -> None:
        _get([actor.start_update.remote(version) for actor in self._actors], self._limit)

    def receive(self, bucket: Any) -> None:
        stored = ray.put(bucket)
        _get([actor.receive.remote(stored) for actor in self._actors], self._limit)

    def finish_update(self) -> None:
        _get([actor.finish_update.remote() for actor in self._actors], self._limit)


def _get(references: Any, limit: float) -> Any:
    return ray.get(references, timeout=limit)
