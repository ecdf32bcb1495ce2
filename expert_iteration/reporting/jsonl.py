"""The files that tools outside the package read: metrics.jsonl and summary.json."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from expert_iteration.types import Metrics

Event: TypeAlias = dict[str, float | None]
"""One line of metrics.jsonl: `iteration`, `step`, `seconds` and ``stage/quantity`` keys."""


class EventLog:
    """metrics.jsonl, appended line by line.

    A file that is there already is continued: events after `step`, which a resumed run is about to
    live through again, and a line torn by a kill are dropped from it first.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.past = _prune(path, step)
        """The events that were kept from earlier sessions of the run."""
        self._file = path.open("a", encoding="ascii", buffering=1)

    def write(self, metrics: Metrics, iteration: int, step: int, seconds: float) -> Event:
        """Append one event and return it. NaN and infinities, which JSON lacks, become null."""
        strays = [key for key in metrics if "/" not in key]
        assert not strays, f"metrics are named stage/quantity, got {strays}"
        event: Event = {"iteration": iteration, "step": step, "seconds": round(seconds, 3)}
        event |= {key: _number(value) for key, value in metrics.items()}
        self._file.write(encode(event))
        return event

    def close(self) -> None:
        self._file.close()


def encode(row: Mapping[str, Any]) -> str:
    """One line of JSON in printable ASCII: no control or bidirectional character of a text is raw."""
    return json.dumps(row, allow_nan=False).replace("\x7f", "\\u007f") + "\n"


def read_events(path: Path) -> list[Event]:
    """The events of a metrics.jsonl, without the line that a killed run may have left torn."""
    events = (_parse(line) for line in path.read_bytes().splitlines())
    return [event for event in events if event is not None]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object so that a reader finds either the old file or the whole new one."""
    _replace(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _prune(path: Path, step: int) -> list[Event]:
    if not path.exists():
        return []
    kept = [event for event in read_events(path) if (event.get("step") or 0) <= step]
    _replace(path, "".join(encode(event) for event in kept))
    return kept


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _number(value: float) -> float | None:
    if isinstance(value, int):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
