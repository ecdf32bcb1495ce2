"""What the processes of a run did when, from the files of timeline/, and how long they waited."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from expert_iteration.reporting.jsonl import read_rows

KINDS = {
    "collect": ("collect", "generate"),
    "grade": ("grade",),
    "score": ("score", "verify"),
    "learn": ("learn",),
    "push": ("push", "publish", "receive"),
    "evaluate": ("evaluate",),
    "other": ("start", "load", "draw", "store", "save"),
}
"""What the stages of a process are called in the report; a stage that is not listed is `other`."""
KIND_OF = {stage: kind for kind, stages in KINDS.items() for stage in stages}
PROCESSES = ("driver", "collector", "trainer", "reference")
"""In the order in which their lanes lie."""
LONGEST_PAUSE = 30.0
"""Seconds in which no process does anything, after which a run is taken to have been stopped ..."""
PAUSE_SHARE = 0.02
"""... if they are also more than this share of all the time that it was busy."""


class Span(NamedTuple):
    """In seconds of the wall clock."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


class Stage(NamedTuple):
    """One thing that a process did."""

    kind: str
    iteration: int | None
    span: Span


@dataclass(frozen=True)
class Lane:
    """One process."""

    name: str
    stages: tuple[Stage, ...]

    def of_kind(self, kind: str) -> list[Span]:
        """Sorted and apart: what overlaps or touches is one span."""
        return merged(stage.span for stage in self.stages if stage.kind == kind)

    @property
    def kinds(self) -> list[str]:
        present = {stage.kind for stage in self.stages}
        return [kind for kind in KINDS if kind in present]


@dataclass(frozen=True)
class Chronicle:
    """All processes of a run, over all sessions of it."""

    lanes: tuple[Lane, ...]
    sessions: tuple[Span, ...]
    """Between them the run was stopped."""

    @staticmethod
    def of(run: Path) -> "Chronicle | None":
        """From timeline/; None if nothing is there, as in runs of older versions."""
        found = [_lane(file) for file in (run / "timeline").glob("*.jsonl")]
        lanes = tuple(sorted((lane for lane in found if lane.stages), key=lambda lane: _place(lane.name)))
        if not lanes:
            return None
        return Chronicle(lanes, tuple(sessions(stage.span for lane in lanes for stage in lane.stages)))

    @property
    def seconds(self) -> float:
        return sum(session.seconds for session in self.sessions)

    def spent(self, lane: Lane) -> dict[str, float]:
        """Seconds of a process by kind, and `wait`: those of the sessions in which it did nothing.

        A process may do several things at once, so that the sum may exceed the time that went by.
        """
        spent = {kind: sum(span.seconds for span in lane.of_kind(kind)) for kind in lane.kinds}
        busy = sum(span.seconds for span in merged(stage.span for stage in lane.stages))
        return spent | {"wait": max(0.0, self.seconds - busy)}

    def iterations(self) -> list[int]:
        found = {stage.iteration for lane in self.lanes for stage in lane.stages}
        return sorted(iteration for iteration in found if iteration)

    def window(self, iteration: int) -> Span:
        """From the first to the last thing that was done for an iteration in its last session."""
        spans = [stage.span for lane in self.lanes for stage in lane.stages if stage.iteration == iteration]
        last = [session for session in self.sessions if any(_meet(session, span) for span in spans)][-1]
        inside = [span for span in spans if _meet(last, span)]
        return Span(min(span.start for span in inside), max(span.end for span in inside))


def merged(spans: Iterable[Span], gap: float = 0.0) -> list[Span]:
    """The union, in order; spans not further apart than `gap` seconds become one."""
    union: list[Span] = []
    for span in sorted(spans):
        if union and span.start <= union[-1].end + gap:
            union[-1] = Span(union[-1].start, max(union[-1].end, span.end))
        else:
            union.append(span)
    return union


def sessions(spans: Iterable[Span]) -> list[Span]:
    """The times between which nothing happened for long."""
    busy = merged(spans)
    pause = max(LONGEST_PAUSE, PAUSE_SHARE * sum(span.seconds for span in busy))
    return merged(busy, pause)


def rows_of(lane: Lane) -> list[list[str]]:
    """Kinds of a process by the row of its lane: those that overlap lie in rows of their own."""
    rows: list[list[str]] = []
    for kind in lane.kinds:
        row = next((row for row in rows if not _overlap(lane, row, kind)), None)
        if row is None:
            rows.append([kind])
        else:
            row.append(kind)
    return rows


def _overlap(lane: Lane, kinds: Sequence[str], kind: str) -> bool:
    """Whether `kind` is at work at the same time as one of `kinds`, by more than the clock's last digits."""
    apart = [span for kind in (*kinds, kind) for span in lane.of_kind(kind)]
    together = sum(span.seconds for span in merged(apart))
    return sum(span.seconds for span in apart) - together > 0.001 * max(1.0, together)


def _meet(one: Span, other: Span) -> bool:
    return one.start <= other.end and other.start <= one.end


def _lane(file: Path) -> Lane:
    stages = [
        Stage(KIND_OF.get(row["stage"], "other"), row["iteration"], Span(row["start"], row["end"]))
        for row in read_rows(file)
    ]
    return Lane(file.stem, tuple(stages))


def _place(name: str) -> tuple[int, str, int]:
    kind, _, number = name.rpartition("_")
    kind, number = (kind, number) if number.isdecimal() else (name, "0")
    place = PROCESSES.index(kind) if kind in PROCESSES else len(PROCESSES)
    return place, kind, int(number)
