"""Nodes of a cluster, and whether bundles find room on them."""

from collections.abc import Sequence
from dataclasses import dataclass

from expert_iteration.placement.bundles import Bundle, amount, total

NAMED = 3
"""Bundles that a message names one by one."""


@dataclass(frozen=True)
class Node:
    id: str
    address: str
    gpus: float
    cpus: float
    free_gpus: float
    free_cpus: float

    def __str__(self) -> str:
        free = amount(self.free_gpus, self.free_cpus)
        return f"{self.address} has {amount(self.gpus, self.cpus)}, free {free}"


def settled(bundles: Sequence[Bundle], room: Sequence[tuple[float, float]]) -> list[int | None]:
    """The node of each bundle, by its index, as a first fit of the largest; None: there is no room for it.

    Those that write come first, as they are to be together.

    Args:
        room: free (GPUs, CPUs) of each node.
    """
    left = [list(free) for free in room]
    found: list[int | None] = [None] * len(bundles)
    order = sorted(range(len(bundles)), key=lambda i: (not bundles[i].writes, -bundles[i].gpus))
    for index in order:
        need = bundles[index].gpus, bundles[index].cpus
        for node, free in enumerate(left):
            if all(there >= asked for there, asked in zip(free, need, strict=True)):
                found[index] = node
                left[node] = [there - asked for there, asked in zip(free, need, strict=True)]
                break
    return found


def homeless(bundles: Sequence[Bundle], room: Sequence[tuple[float, float]]) -> str:
    """The bundles that find no room, in words; empty if all do."""
    left = [str(bundle) for bundle, node in zip(bundles, settled(bundles, room), strict=True) if node is None]
    more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
    return ", ".join(left[:NAMED]) + more


def spread(bundles: Sequence[Bundle], count: int) -> list[int]:
    """The node of each bundle on `count` equal nodes, which are as small as they can be."""
    gpus, cpus = total(bundles)
    for size in range(1, max(gpus, cpus) + 1):
        room = (size, cpus) if gpus else (0, size)
        found = [node for node in settled(bundles, [room] * count) if node is not None]
        if len(found) == len(bundles):
            break
    return found


def fits(bundles: Sequence[Bundle], nodes: Sequence[Node]) -> bool:
    """Whether nodes that nobody else uses have room for all of them."""
    return None not in settled(bundles, [(node.gpus, node.cpus) for node in nodes])


def shortage(bundles: Sequence[Bundle], nodes: Sequence[Node]) -> str:
    """What is asked for, what there is on each node, and what finds no room."""
    there = "; ".join(map(str, nodes)) or "no node is there"
    left = homeless(bundles, [(node.free_gpus, node.free_cpus) for node in nodes])
    lacking = f"; no room for {left}" if left else ""
    return f"the placement asks for {amount(*total(bundles))} in {len(bundles)} bundles, and {there}{lacking}"
