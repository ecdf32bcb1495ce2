"""What the comparison of engine and trainer is told of either side, and of the batch that it asks about."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from expert_iteration.agreement import Answer, TokenIds, rows_of
from expert_iteration.engine import Request, Rollouts
from expert_iteration.weights import EngineClient

Rows: TypeAlias = Callable[[Sequence[Answer]], list[TensorDict]]


class ExaminedEngine(EngineClient, Protocol):
    def generate(self, requests: Sequence[Request], limit: float | None = None) -> list[Rollouts]: ...


class ExaminedPolicy(Protocol):
    """`TrainedPolicy` is one."""

    def named_weights(self) -> Iterator[tuple[str, Tensor]]: ...

    def score(self, rows: Sequence[TensorDictBase]) -> list[Tensor]: ...

    def best(self, row: TensorDictBase) -> Tensor: ...

    def disturb(self) -> None: ...

    def favour_end(self, rows: Sequence[TensorDictBase]) -> None: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """The fixed batch, and what counts as agreement on it."""

    prompts: Sequence[TokenIds]
    """Of different lengths; the longest fills blocks of the prefix cache."""
    ends: frozenset[int]
    """Tokens that end a response."""
    pad: int
    limit: float
    """Mean difference of log-probs, in nats."""
    dtype: torch.dtype
    """What the engine computes in."""
    wait_limit: float
    rows_of: Rows = rows_of
