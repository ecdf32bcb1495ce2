"""Rows on their way from actor to actor, as plain arrays: pickling a tensor takes ten times as long."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from numpy import ndarray
    from tensordict import TensorDict, TensorDictBase

    from expert_iteration.collector import ScoredGroup
    from expert_iteration.types import Group

PackedRow: TypeAlias = "dict[str | tuple[str, ...], ndarray[Any, Any]]"
"""The leaves of a row by their keys."""


def packed(rows: "Sequence[TensorDictBase]") -> list[PackedRow]:
    return [
        {key: leaf.numpy() for key, leaf in row.items(include_nested=True, leaves_only=True)} for row in rows
    ]


def unpacked(rows: Sequence[PackedRow]) -> "list[TensorDict]":
    """Rows of their own: what Ray hands out may not be written to."""
    import torch
    from tensordict import TensorDict

    return [TensorDict({key: torch.tensor(leaf) for key, leaf in row.items()}) for row in rows]


def packed_groups(groups: "Sequence[ScoredGroup]") -> "list[tuple[Group, list[PackedRow]]]":
    return [(group, packed(rows)) for group, rows in groups]


def unpacked_groups(groups: "Sequence[tuple[Group, list[PackedRow]]]") -> "list[ScoredGroup]":
    return [(group, unpacked(rows)) for group, rows in groups]
