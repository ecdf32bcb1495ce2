"""The other actors, as an actor sees them: the interfaces of the plain classes, with a time limit."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import ray

from expert_iteration.actors.parcels import packed, packed_groups, unpacked
from expert_iteration.types import Interruption

if TYPE_CHECKING:
    from tensordict import TensorDictBase
    from torch import Tensor

    from expert_iteration.collector import ScoredGroup
    from expert_iteration.engine import Request, Rollouts
    from expert_iteration.types import Group


class RemoteArchive:
    """The archive for collectors (`add`) and trainers (`draw`)."""

    def __init__(self, actor: Any, limit: float) -> None:
        self._actor, self._limit = actor, limit

    def add(self, groups: "Sequence[ScoredGroup]", wasted: "Sequence[Group]" = ()) -> None:
        _ask({"buffer": self._actor}, "add", packed_groups(groups), wasted, limit=self._limit)

    def draw(self, step: int, rank: int, world_size: int) -> "Sequence[TensorDictBase]":
        [rows] = _ask({"buffer": self._actor}, "draw", step, rank, world_size, limit=self._limit)
        return unpacked(rows)


class RemoteReference:
    """The reference actors for collectors, asked in turn."""

    def __init__(self, actors: list[Any], limit: float) -> None:
        self._actors, self._limit, self._turn = actors, limit, 0

    def log_probs(self, rows: "Sequence[TensorDictBase]") -> "list[Tensor]":
        from torch import tensor

        self._turn += 1
        rank = self._turn % len(self._actors)
        scorer = {f"reference {rank}": self._actors[rank]}
        [scores] = _ask(scorer, "log_probs", packed(rows), limit=self._limit)
        return [tensor(row) for row in scores]


class RemoteEngines:
    """Engines as one client of a push: each bucket is stored once and read by all."""

    def __init__(self, actors: Mapping[str, Any], limit: float) -> None:
        """`actors` by name."""
        self._actors, self._limit = actors, limit
        self.names = list(actors)

    @property
    def home(self) -> str:
        return str(ray.util.get_node_ip_address())

    def meetings(self) -> dict[str, str | None]:
        met = _ask(self._actors, "meeting", limit=self._limit)
        return dict(zip(self._actors, met, strict=True))

    def connect(self, offers: "Mapping[str, tuple[str, dict[str, Any]]]") -> None:
        """Each engine gets its own offer, and all of them at once: they wait for each other."""
        invited = {name: self._actors[name] for name in offers}
        _ask(invited, "connect", limit=self._limit, each=list(offers.values()))

    def start_update(self, version: int) -> None:
        _ask(self._actors, "start_update", version, limit=self._limit)

    def receive(self, parcel: Any) -> None:
        _ask(self._actors, "receive", ray.put(parcel), limit=self._limit)

    def finish_update(self) -> Interruption:
        return Interruption.of_all(_ask(self._actors, "finish_update", limit=self._limit))

    def sample(self, requests: "Sequence[Request]") -> "dict[str, list[Rollouts]]":
        """The answers of each engine, by its name."""
        answers = _ask(self._actors, "sample", requests, limit=self._limit)
        return dict(zip(self._actors, answers, strict=True))


def _ask(
    actors: Mapping[str, Any],
    method: str,
    *arguments: object,
    limit: float,
    each: Sequence[Sequence[object]] | None = None,
) -> list[Any]:
    """The answers of all actors. No call is under way any more when one of them raises.

    Args:
        each: further arguments, for every actor its own.

    Raises:
        TimeoutError: naming the actors that gave no answer in `limit` seconds.
    """
    own = each or [()] * len(actors)
    calls = {
        getattr(actor, method).remote(*arguments, *further): name
        for (name, actor), further in zip(actors.items(), own, strict=True)
    }
    _, late = ray.wait(list(calls), num_returns=len(calls), timeout=limit)
    if late:
        names = ", ".join(calls[call] for call in late)
        raise TimeoutError(f"{names} gave no answer to {method} in {limit:.0f} s (wait_limit)")
    return cast(list[Any], ray.get(list(calls)))
