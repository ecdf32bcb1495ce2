"""What the answers of a finished run were like, as numbers to plan another one with."""

from collections import defaultdict
from collections.abc import Iterable
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

    answers: int = 0
    right: int = 0
    traces: set[int] = field(default_factory=set)
    """Fingerprints of the right ones."""


def odds_of(run: Path, duplicates: Duplicates) -> Odds:
    """What the answers in the rollouts of `run` were like; those found with a hint are left out.

    Raises:
        ConfigError: the folder holds no rollouts.
    """
    try:
        files = RunFiles.of(run)
    except NoRun as error:
        raise ConfigError(str(error)) from None
    groups, lengths = _groups(files, duplicates)
    judged = [group for group in groups if group.answers]
    if not judged:
        raise ConfigError(f"{run} has no rollouts that were judged; name the folder of another run.")
    mean = sum(group.right for group in judged) / sum(group.answers for group in judged)
    return Odds(mean, _spread(judged, mean), _variety(judged), fmean(lengths))


def _groups(files: RunFiles, duplicates: Duplicates) -> tuple[list[Group], list[int]]:
    asked = files.config.get("rollouts_per_prompt")
    groups: dict[tuple[int, int], Group] = defaultdict(Group)
    lengths = []
    for row in islice(files.rollouts(), MOST_ROWS):
        if row["fate"] == ABSTAINED or (asked is not None and row["rollout_index"] >= asked):
            continue
        group = groups[row["group_id"], row["prompt_id"]]
        group.answers += 1
        lengths.append(row["tokens"])
        if row["verdict"] == "correct":
            group.right += 1
            group.traces.add(fingerprint(row["response"], duplicates))
    return list(groups.values()), lengths


def _spread(groups: Iterable[Group], mean: float) -> float:
    """By moments: x (x - 1) / (n (n - 1)) of a group has the mean of the squared pass rates."""
    pairs = [
        group.right * (group.right - 1) / (group.answers * (group.answers - 1))
        for group in groups
        if group.answers > 1
    ]
    if not pairs or mean in (0.0, 1.0):
        return 0.0
    return min(1.0, max(0.0, (fmean(pairs) - mean**2) / (mean * (1 - mean))))


def _variety(groups: Iterable[Group]) -> float:
    solved = [group for group in groups if group.right]
    more = sum(group.right - 1 for group in solved)
    return sum(len(group.traces) - 1 for group in solved) / more if more else 1.0
