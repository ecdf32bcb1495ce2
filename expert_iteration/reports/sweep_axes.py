"""What a sweep varies: of all keys in which its runs differ, those that were chosen."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import TypeGuard

from expert_iteration.reports.sweep_runs import SweepRun, Value

REPEATS = frozenset({"seed"})
"""Keys that repeat a run."""
PLACES = frozenset({"resume", "values.path", "logger.name", "logger.group"})
"""Keys that say where something lies, or what it is called."""


EVEN = 1.5
"""By how much the distances between neighbours may differ on a linear scale."""


class Scale(Enum):
    """How the values of an axis are laid out."""

    LINEAR = "linear"
    LOG = "log"
    ORDINAL = "ordinal"
    """One after the other, as words are."""


@dataclass(frozen=True)
class Axis:
    """A key that a sweep varies."""

    key: str
    values: tuple[Value, ...]
    """Numbers by size, before what is no number, in the order of the runs."""

    @property
    def scale(self) -> Scale:
        """Logarithmic where the ratios of neighbours differ less than their distances do."""
        numbers = [value for value in self.values if is_number(value)]
        if len(numbers) < len(self.values):
            return Scale.ORDINAL
        pairs = list(pairwise(numbers))
        distances = [high - low for low, high in pairs]
        if len(numbers) < 3 or max(distances) < EVEN * min(distances):
            return Scale.LINEAR
        if numbers[0] <= 0:  # it has no ratios
            return Scale.ORDINAL
        ratios = [high / low for low, high in pairs]
        return Scale.LOG if max(ratios) / min(ratios) < max(distances) / min(distances) else Scale.LINEAR

    def place(self, value: Value) -> float:
        """Where a value stands: itself, or its number in the row."""
        return float(self.values.index(value) if self.scale is Scale.ORDINAL else value or 0.0)

    def height(self, value: Value) -> float:
        """Where a value stands on the scale, from 0 for the first value to 1 for the last."""
        places = [self.place(one) for one in (value, self.values[0], self.values[-1])]
        here, low, high = map(math.log, places) if self.scale is Scale.LOG else places
        return (here - low) / (high - low) if high > low else 0.0


def is_number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def value_of(run: SweepRun, key: str) -> Value:
    """What a run was told; None also where it knows no such key."""
    setting = run.settings.get(key)
    return None if setting is None else setting.value


def varying(runs: Sequence[SweepRun]) -> list[str]:
    """Every key in which runs differ, apart from repeats, places, and references that follow another key."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    return [key for key in keys if key not in REPEATS | PLACES and _differs(runs, key)]


def axes_of(runs: Sequence[SweepRun]) -> list[Axis]:
    """The fewest keys that tell what the runs differ in.

    First those of the command line, then others that these do not determine. A key follows, and is no
    axis, where a named choice such as `algorithm` determines it.
    """
    keys = varying(runs)
    asked = _renamed(runs, [key for key in keys if _is_asked(runs, key)])
    axes: list[str] = []
    for key in sorted(asked, key=lambda key: (not _is_named(runs, key), not key.endswith(".name"))):
        if not _determines(runs, [axis for axis in axes if _is_named(runs, axis)], key):
            axes.append(key)
    for key in keys:
        if not _determines(runs, axes, key):
            axes.append(key)
    return [Axis(key, _in_order(value_of(run, key) for run in runs)) for key in axes]


def followers(runs: Sequence[SweepRun], axes: Sequence[Axis]) -> list[str]:
    """Keys that vary with the axes."""
    return [key for key in varying(runs) if key not in {axis.key for axis in axes}]


def _differs(runs: Sequence[SweepRun], key: str) -> bool:
    settings = {run.settings[key] for run in runs if key in run.settings}
    return (
        min(len({setting.written for setting in settings}), len({setting.value for setting in settings})) > 1
    )


def _is_asked(runs: Sequence[SweepRun], key: str) -> bool:
    """Whether the command line says of a key something else from run to run."""
    return len({run.overridden.get(key) for run in runs}) > 1


def _is_named(runs: Sequence[SweepRun], key: str) -> bool:
    """Whether the values are words, not numbers."""
    values = [value_of(run, key) for run in runs]
    return any(isinstance(value, str | bool) for value in values)


def _renamed(runs: Sequence[SweepRun], keys: Sequence[str]) -> list[str]:
    """Groups by the `name` in their section, where it says the same as the choice."""
    names = {key: f"{key}.name" for key in keys}
    return [
        name if _determines(runs, [name], key) and _determines(runs, [key], name) else key
        for key, name in names.items()
    ]


def _determines(runs: Sequence[SweepRun], keys: Sequence[str], other: str) -> bool:
    """Whether runs that agree in `keys` agree in `other`."""
    found: dict[tuple[Value, ...], set[str]] = defaultdict(set)
    for run in runs:
        found[tuple(value_of(run, key) for key in keys)].add(repr(value_of(run, other)))
    return all(len(values) == 1 for values in found.values())


def _in_order(values: Iterable[Value]) -> tuple[Value, ...]:
    present = list(dict.fromkeys(values))
    numbers = sorted(value for value in present if is_number(value))
    return (*numbers, *(value for value in present if not is_number(value)))
