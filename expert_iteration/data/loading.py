"""All rows of a task, read, checked and parted in training and evaluation; nothing is rendered yet."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from expert_iteration.choices import OnBadRow
from expert_iteration.config import (
    ConfigError,
    DataConfig,
    Member,
    RunConfig,
    members_of,
)
from expert_iteration.data.checking import Dropped, sift
from expert_iteration.data.questions import normalised, part_of
from expert_iteration.data.readers import Example
from expert_iteration.data.sources import EVALUATION, TRAIN, has_evaluation_set, open_source
from expert_iteration.grading import Grader

NAMED = 5
"""Rows that an error names; the others are counted."""


@dataclass(frozen=True)
class Part:
    """What one dataset gives to one split."""

    member: Member
    split: str
    source: str
    rows: int
    examples: tuple[Example, ...]
    dropped: tuple[Dropped, ...]
    numbers: int
    """Rows of the source, which are numbered from 0; in a mixture the next member counts on."""
    warning: str = ""


@dataclass(frozen=True)
class Parts:
    """Training and evaluation parts of each member, in order; no question stands in both."""

    train: tuple[Part, ...]
    evaluation: tuple[Part, ...]


def read_task(config: RunConfig) -> Parts:
    """Read and check every row of a task.

    Raises:
        ConfigError: a source is missing, `data.on_bad_row` is `fail` and a row is bad, or a training
            question also stands in the evaluation set.
    """
    with Grader(config.grading) as grader:
        pairs = [_read_member(member, config.seed, grader) for member in members_of(config.task)]
    parts = Parts(tuple(train for train, _ in pairs), tuple(evaluation for _, evaluation in pairs))
    refuse_bad_rows(config.data, (*parts.train, *parts.evaluation))
    _refuse_leaks(parts)
    return parts


def read_part(member: Member, split: str, seed: int, grader: Grader) -> Part:
    """Read and check all rows of one source; of the training set, the first `limit`."""
    source = open_source(member, split, seed)
    limit = member.dataset.limit if split == TRAIN else None
    sifted = sift(source.lines, member.dataset, grader, limit)
    return Part(
        member,
        split,
        source.name,
        sifted.rows,
        sifted.examples,
        sifted.dropped,
        numbers=sifted.rows,
        warning=source.warning,
    )


def parted(whole: Part, shares: Mapping[str, float], seed: int = 0) -> dict[str, Part]:
    """Part the examples by `part_of`; the rows that were dropped stay with the first part."""
    kept: dict[str, list[Example]] = {name: [] for name in shares}
    for example in whole.examples:
        kept[part_of(example.question, shares, seed)].append(example)
    parts = {
        name: replace(
            whole,
            split=name,
            source=f"{share / sum(shares.values()):.0%} of {whole.source}",
            rows=len(kept[name]),
            examples=tuple(kept[name]),
            dropped=(),
            warning="",
        )
        for name, share in shares.items()
    }
    first = next(iter(shares))
    rows = len(kept[first]) + len(whole.dropped)
    parts[first] = replace(parts[first], rows=rows, dropped=whole.dropped, warning=whole.warning)
    return parts


def refuse_bad_rows(config: DataConfig, parts: Iterable[Part]) -> None:
    """Obey `data.on_bad_row`.

    Raises:
        ConfigError: it is `fail`, and rows were dropped.
    """
    dropped = [row.text for part in parts for row in part.dropped]
    if dropped and config.on_bad_row is OnBadRow.fail:
        raise ConfigError(
            f"data.on_bad_row is fail, and of the rows {len(dropped)} cannot be used: {first_of(dropped)}. "
            "Mend or remove them, or go on without them: data.on_bad_row=drop."
        )


def _read_member(member: Member, seed: int, grader: Grader) -> tuple[Part, Part]:
    train = read_part(member, TRAIN, seed, grader)
    if has_evaluation_set(member.dataset):
        return train, read_part(member, EVALUATION, seed, grader)
    share = member.dataset.held_out
    parts = parted(train, {TRAIN: 1 - share, EVALUATION: share})
    return parts[TRAIN], parts[EVALUATION]


def _refuse_leaks(parts: Parts) -> None:
    asked = {normalised(example.question): example for part in parts.evaluation for example in part.examples}
    leaks = [
        f"{example.place} is {there.place}"
        for part in parts.train
        for example in part.examples
        if (there := asked.get(normalised(example.question))) is not None
    ]
    if leaks:
        raise ConfigError(
            f"the evaluation asks {len(leaks)} of the training questions, but for case, spaces and "
            f"punctuation: {first_of(leaks)}. Remove them from one of the two."
        )


def first_of(texts: list[str]) -> str:
    """The first few on one line, and how many there are besides."""
    more = len(texts) - NAMED
    return "; ".join(texts[:NAMED]) + (f"; and {more} more" if more > 0 else "")
