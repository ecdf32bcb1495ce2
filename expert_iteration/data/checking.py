"""Every row is looked at before a run starts: what passes, what is dropped, and why."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from expert_iteration.config import DatasetConfig
from expert_iteration.data.demonstrations import demonstration
from expert_iteration.data.files import Line
from expert_iteration.data.questions import normalised
from expert_iteration.data.readers import READERS, BadRow, Example
from expert_iteration.grading import Grader, Response
from expert_iteration.grading.algebra import identical
from expert_iteration.grading.comparison import compare
from expert_iteration.grading.ifeval import problem_with
from expert_iteration.grading.spelling import normal
from expert_iteration.grading.styles import INSTRUCTION_STYLE
from expert_iteration.types import Outcome, Verdict

UNREADABLE, FIELDS, GOLD = "unreadable", "fields", "gold"
SAME_ID, SAME_QUESTION, OTHER_GOLD = "same_id", "same_question", "same_question_other_gold"

SPELLED_OTHERWISE = r"\pi+7919"
"""An answer that is no gold."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that is not used."""

    reason: str
    """One of the names above."""
    text: str
    """``train.jsonl:17: not JSON (...)``."""


@dataclass(frozen=True)
class Sifted:
    """The rows of one source after all checks."""

    rows: int
    examples: tuple[Example, ...]
    dropped: tuple[Dropped, ...] = ()


def sift(lines: Iterable[Line], dataset: DatasetConfig, grader: Grader, limit: int | None = None) -> Sifted:
    """Read the first `limit` rows; keep those that are whole, new, and whose own gold is judged correct."""
    rows, read, dropped = 0, [], []
    for line in islice(lines, limit):
        try:
            read.append(_example(line, rows, dataset))
        except BadRow as error:
            dropped.append(Dropped(UNREADABLE if line.problem else FIELDS, f"{line.place}: {error}"))
        rows += 1
    sound, faulty = _with_sound_golds(read, dataset.prompt.style, grader)
    kept, repeated = _without_repeats(sound)
    return Sifted(rows, tuple(kept), (*dropped, *faulty, *repeated))


def only_spelled(gold: str) -> bool:
    """Whether an answer that is spelled otherwise is never judged: the form is refused to math-verify."""
    verdict = compare(SPELLED_OTHERWISE, gold)
    refused = isinstance(verdict, Verdict) and verdict.outcome is Outcome.ERROR
    return refused and identical(body := normal(gold), body) is None


def _example(line: Line, number: int, dataset: DatasetConfig) -> Example:
    if line.problem:
        raise BadRow(line.problem)
    example = READERS[dataset.name](line.fields, dataset.fields)
    return replace(example, number=number, place=line.place)


def _with_sound_golds(
    examples: Sequence[Example], style: str, grader: Grader
) -> tuple[list[Example], list[Dropped]]:
    """Examples whose worked response the grader accepts, and the others."""
    sound, faulty = [], []
    for example, problem in zip(examples, _gold_problems(examples, style, grader), strict=True):
        if problem is None:
            sound.append(example)
        else:
            faulty.append(Dropped(GOLD, f"{example.place}: {problem}"))
    return sound, faulty


def _gold_problems(examples: Sequence[Example], style: str, grader: Grader) -> list[str | None]:
    if style == INSTRUCTION_STYLE:
        return [problem_with(example.gold) for example in examples]
    verdicts = grader.grade(
        [Response(style, demonstration(style, example) or "", example.gold) for example in examples]
    )
    return [
        None
        if verdict.success
        else f"the gold {example.gold[:80]!r}, written in the style {style}, is not judged correct but "
        f"{verdict.outcome.value} ({verdict.reason})"
        for example, verdict in zip(examples, verdicts, strict=True)
    ]


def _without_repeats(examples: Iterable[Example]) -> tuple[list[Example], list[Dropped]]:
    """The first example of each question and of each id, and the later ones."""
    kept: list[Example] = []
    repeated: list[Dropped] = []
    by_question: dict[str, Example] = {}
    by_id: dict[str, Example] = {}
    for example in examples:
        question = normalised(example.question)
        if (first := by_question.get(question)) is not None:
            repeated.append(_repeat(example, first))
        elif example.id and (first := by_id.get(example.id)) is not None:
            repeated.append(
                Dropped(SAME_ID, f"{example.place}: the id {example.id} is that of {first.place}")
            )
        else:
            kept.append(example)
            by_question[question] = by_id[example.id] = example
    return kept, repeated


def _repeat(example: Example, first: Example) -> Dropped:
    if example.gold == first.gold:
        return Dropped(SAME_QUESTION, f"{example.place}: the question of {first.place} again")
    return Dropped(
        OTHER_GOLD,
        f"{example.place}: the question of {first.place} again, with the gold {example.gold[:80]!r} "
        f"instead of {first.gold[:80]!r}",
    )
