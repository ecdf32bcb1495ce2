"""Nodes of a cluster, and whether bundles find room on them."""

from collections.abc import Sequence
from dataclasses import dataclass

from expert_iteration.placement.bundles import Bundle, amount, total


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

    Args:
        room: free (GPUs, CPUs) of each node.
    """
    left = [list(free) for free in room]
    found: list[int | None] = [None] * len(bundles)
    # among equals, those that write come first, so that they are together
    order = sorted(range(len(bundles)), key=lambda i: (-bundles[i].gpus, not bundles[i].writes))
    for index in order:
        need = bundles[index].gpus, bundles[index].cpus
        for node, free in enumerate(left):
            if all(there >= asked for there, asked in zip(free, need, strict=True)):
                found[index] = node
                left[node] = [there - asked for there, asked in zip(free, need, strict=True)]
                break
    return found


def fits(bundles: Sequence[Bundle], nodes: Sequence[Node]) -> bool:
    """Whether nodes that nobody else uses have room for all of them."""
    return None not in settled(bundles, [(node.gpus, node.cpus) for node in nodes])


def shortage(bundles: Sequence[Bundle], nodes: Sequence[Node]) -> str:
    """What is asked for, what there is on each node, and what finds no room."""
    homeless = [
        str(bundle)
        for bundle, node in zip(
            bundles, settled(bundles, [(n.free_gpus, n.free_cpus) for n in nodes]), strict=True
        )
        if node is None
    ]
    there = "; ".join(map(str, nodes)) or "no node is there"
    lacking = f"; no room for {', '.join(homeless)}" if homeless else ""
    return f"the placement asks for {amount(*total(bundles))} in {len(bundles)} bundles, and {there}{lacking}"
