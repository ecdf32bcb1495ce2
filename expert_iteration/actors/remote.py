"""The other actors, as an actor sees them: the interfaces of the plain classes, with a time limit."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import ray

if TYPE_CHECKING:
    from tensordict import TensorDictBase

    from expert_iteration.collector import ScoredGroup
    from expert_iteration.engine import Request, Rollouts
    from expert_iteration.types import Group


class RemoteArchive:
    """The archive for collectors (`add`) and trainers (`draw`)."""

    def __init__(self, actor: Any, limit: float) -> None:
        self._actor, self._limit = actor, limit

    def add(self, groups: "Sequence[ScoredGroup]", wasted: "Sequence[Group]" = ()) -> None:
        _ask({"buffer": self._actor}, "add", groups, wasted, limit=self._limit)

    def draw(self, step: int, rank: int, world_size: int) -> "Sequence[TensorDictBase]":
        [rows] = _ask({"buffer": self._actor}, "draw", step, rank, world_size, limit=self._limit)
        return cast("Sequence[TensorDictBase]", rows)


class RemoteReference:
    """The reference actors for collectors, asked in turn."""

    def __init__(self, actors: list[Any], limit: float) -> None:
        self._actors, self._limit, self._turn = actors, limit, 0

    def log_probs(self, rows: "Sequence[TensorDictBase]") -> list[Any]:
        self._turn += 1
        rank = self._turn % len(self._actors)
        [scores] = _ask({f"reference {rank}": self._actors[rank]}, "log_probs", rows, limit=self._limit)
        return cast(list[Any], scores)


class RemoteEngines:
    """Engines as one client of a push: each bucket is stored once and read by all."""

    def __init__(self, actors: Mapping[str, Any], limit: float) -> None:
        """`actors` by name."""
        self._actors, self._limit = actors, limit

    def start_update(self, version: int) -> None:
        _ask(self._actors, "start_update", version, limit=self._limit)

    def receive(self, bucket: Any) -> None:
        _ask(self._actors, "receive", ray.put(bucket), limit=self._limit)

    def finish_update(self) -> None:
        _ask(self._actors, "finish_update", limit=self._limit)

    def sample(self, requests: "Sequence[Request]") -> "dict[str, list[Rollouts]]":
        """The answers of each engine, by its name."""
        answers = _ask(self._actors, "sample", requests, limit=self._limit)
        return dict(zip(self._actors, answers, strict=True))


def _ask(actors: Mapping[str, Any], method: str, *arguments: object, limit: float) -> list[Any]:
    """The answers of all actors. No call is under way any more when one of them raises.

    Raises:
        TimeoutError: naming the actors that gave no answer in `limit` seconds.
    """
    calls = {getattr(actor, method).remote(*arguments): name for name, actor in actors.items()}
    _, late = ray.wait(list(calls), num_returns=len(calls), timeout=limit)
    if late:
        names = ", ".join(calls[call] for call in late)
        raise TimeoutError(f"{names} gave no answer to {method} in {limit:.0f} s (wait_limit)")
    return cast(list[Any], ray.get(list(calls)))
