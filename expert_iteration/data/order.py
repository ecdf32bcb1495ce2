"""Endless orders that can be entered anywhere: what comes n-th is a function of the seed and n alone."""

import random
from collections.abc import Sequence

ROUND = 1000
"""Visits after which the shares of a mixture are met, give or take one for each member."""


class Passes:
    """Passes over `size` things, each thing once in a pass, each pass in an order of its own."""

    def __init__(self, size: int, seed: str) -> None:
        self._size = size
        self._seed = seed
        self._pass_number = -1
        self._order: list[int] = []

    def position(self, visit: int) -> int:
        """Which thing the visit goes to; visits are counted from 0."""
        pass_number, step = divmod(visit, self._size)
        if pass_number != self._pass_number:
            self._order = list(range(self._size))
            random.Random(f"{self._seed}/{pass_number}").shuffle(self._order)
            self._pass_number = pass_number
        return self._order[step]


class Deal:
    """Deals visits to the members of a mixture in proportion to their weights, evenly spread.

    In each round a member gets its share of `ROUND` visits, rounded, but at least one. Its k-th of n is due
    at (k + 1/2) / n of the round; visits go in the order in which they are due, ties to the earlier member.
    So weights 2 and 1 begin with 0 1 0, 0 1 0, and nothing of it is random.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        whole = sum(weights)
        self._counts = [max(1, round(ROUND * weight / whole)) for weight in weights]
        due = [
            ((turn + 0.5) / count, member, turn)
            for member, count in enumerate(self._counts)
            for turn in range(count)
        ]
        self._turns = [(member, turn) for _, member, turn in sorted(due)]

    def turn(self, visit: int) -> tuple[int, int]:
        """The member that gets the visit, and which of its own visits this is; all counted from 0."""
        rounds, position = divmod(visit, len(self._turns))
        member, turn = self._turns[position]
        return member, rounds * self._counts[member] + turn
