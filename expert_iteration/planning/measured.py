"""What the answers of a finished run were like, as numbers to plan another one with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean

from expert_iteration.choices import Duplicates
from expert_iteration.config import ConfigError
from expert_iteration.planning.odds import Odds
from expert_iteration.reporting.rollouts import ABSTAINED
from expert_iteration.reports.runs import NoRun, RunFiles
from expert_iteration.traces import fingerprint

MOST_ROWS = 50_000
"""Rollouts that are read, from the first iteration on: they take a second."""


@dataclass
class Group:
    """The judged answers of one visit."""

    iteration: int
    lengths: list[int] = field(default_factory=list)
    """Tokens of each answer."""
    right: int = 0
    traces: set[int] = field(default_factory=set)
    """Fingerprints of the right ones."""


def odds_of(run: Path, duplicates: Duplicates) -> Odds:
    """What the answers in the rollouts of `run` were like; those found with a hint are left out.

    Raises:
        ConfigError: the folder holds no rollouts.
    """
    return _odds(_groups(run, duplicates))


def odds_by_iteration(run: Path, duplicates: Duplicates) -> dict[int, Odds]:
    """The same for each iteration of `run`, 1 for the first.

    Raises:
        ConfigError: the folder holds no rollouts.
    """
    groups = _groups(run, duplicates)
    iterations = sorted({group.iteration for group in groups})
    return {number: _odds([group for group in groups if group.iteration == number]) for number in iterations}


def _groups(run: Path, duplicates: Duplicates) -> list[Group]:
    try:
        files = RunFiles.of(run)
    except NoRun as error:
        raise ConfigError(str(error)) from None
    asked = files.config.get("rollouts_per_prompt")
    groups: dict[tuple[int, int], Group] = {}
    for row in islice(files.rollouts(), MOST_ROWS):
        if row["fate"] == ABSTAINED or (asked is not None and row["rollout_index"] >= asked):
            continue
        group = groups.setdefault((row["group_id"], row["prompt_id"]), Group(row["iteration"]))
        group.lengths.append(row["tokens"])
        if row["verdict"] == "correct":
            group.right += 1
            group.traces.add(fingerprint(row["response"], duplicates))
    if not groups:
        raise ConfigError(f"{run} has no rollouts that were judged; name the folder of another run.")
    return list(groups.values())


def _odds(groups: Sequence[Group]) -> Odds:
    lengths = [length for group in groups for length in group.lengths]
    mean = sum(group.right for group in groups) / len(lengths)
    return Odds(mean, _spread(groups, mean), _variety(groups), fmean(lengths))


def _spread(groups: Iterable[Group], mean: float) -> float:
    """By moments: x (x - 1) / (n (n - 1)) of a group has the mean of the squared pass rates."""
    pairs = [
        group.right * (group.right - 1) / (len(group.lengths) * (len(group.lengths) - 1))
        for group in groups
        if len(group.lengths) > 1
    ]
    if not pairs or mean in (0.0, 1.0):
        return 0.0
    return min(1.0, max(0.0, (fmean(pairs) - mean**2) / (mean * (1 - mean))))


def _variety(groups: Iterable[Group]) -> float:
    solved = [group for group in groups if group.right]
    more = sum(group.right - 1 for group in solved)
    return sum(len(group.traces) - 1 for group in solved) / more if more else 1.0
