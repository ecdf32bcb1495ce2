"""How much of a run has been sent to a service that keeps everything it is sent."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from expert_iteration.reporting.jsonl import Event, write_json


@dataclass(frozen=True, slots=True)
class Mark:
    rows: int = 0
    """Sent, events and tables of rollouts."""
    step: int = -1
    """Of the last event that was sent."""
    events: int = 0
    """Sent of that step."""
    iteration: int = 0
    """Of the last rollouts that were sent."""


class Watermark:
    """A run that was killed lives through some of its events again; those are not sent again.

    Events are told apart by their step and their number among those of that step, which a kill does not
    change. The mark is a small file, written before the row is sent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = Mark(**json.loads(path.read_text(encoding="ascii"))) if path.exists() else Mark()
        self._step, self._events = -1, 0

    def stand(self, step: int, past: Sequence[Event]) -> None:
        """Count on from `past`, the events up to `step`."""
        self._step, self._events = step, sum(event["step"] == step for event in past)

    def next_event(self, event: Event) -> int | None:
        """The number of the row that `event` is to be, from 0; None: it was sent before."""
        step = int(event["step"] or 0)
        self._events = self._events + 1 if step == self._step else 1
        self._step = step
        if (step, self._events) <= (self._mark.step, self._mark.events):
            return None
        return self._raise(replace(self._mark, step=step, events=self._events))

    def next_rollouts(self, iteration: int) -> int | None:
        """Likewise, of the rollouts of `iteration`."""
        if iteration <= self._mark.iteration:
            return None
        return self._raise(replace(self._mark, iteration=iteration))

    def _raise(self, mark: Mark) -> int:
        number = self._mark.rows
        self._mark = replace(mark, rows=number + 1)
        write_json(self._path, asdict(self._mark))
        return number
