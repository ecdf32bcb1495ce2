"""The files that tools outside the package read: metrics.jsonl and summary.json."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from expert_iteration.types import Metrics

Event: TypeAlias = dict[str, float | None]
"""The numbers in one line of metrics.jsonl: `iteration`, `step`, `seconds` and ``stage/quantity`` keys."""


class EventLog:
    """metrics.jsonl, appended line by line.

    A file that is there already is continued after its first `keep` lines: a resumed run is about to
    live through the others again.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        _prune(path, keep)
        self.past = read_events(path) if path.exists() else []
        """The events that were kept from earlier sessions of the run."""
        self.lines = keep
        """In the file."""
        self._file = path.open("a", encoding="ascii", buffering=1)

    def write(self, metrics: Metrics, iteration: int, step: int, seconds: float) -> Event:
        """Append one event and return it. NaN and infinities, which JSON lacks, become null."""
        strays = [key for key in metrics if "/" not in key]
        assert not strays, f"metrics are named stage/quantity, got {strays}"
        event = _place(iteration, step, seconds)
        event |= {key: _number(value) for key, value in metrics.items()}
        self._append(event)
        return event

    def stamp(self, facts: Mapping[str, str], iteration: int, step: int, seconds: float) -> None:
        """Append a line that holds texts, ``stage/fact``, instead of numbers."""
        self._append({**_place(iteration, step, seconds), **facts})

    def close(self) -> None:
        self._file.close()

    def _append(self, row: Mapping[str, Any]) -> None:
        self._file.write(encode(row))
        self.lines += 1


def encode(row: Mapping[str, Any]) -> str:
    """One line of JSON in printable ASCII: no control or bidirectional character of a text is raw."""
    return json.dumps(row, allow_nan=False).replace("\x7f", "\\u007f") + "\n"


def read_events(path: Path) -> list[Event]:
    """The events of a metrics.jsonl, without the line that a killed run may have left torn."""
    return [
        {key: value for key, value in row.items() if not isinstance(value, str)} for row in read_rows(path)
    ]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object so that a reader finds either the old file or the whole new one."""
    replace_file(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _prune(path: Path, keep: int) -> None:
    if path.exists():
        replace_file(path, "".join(encode(row) for row in read_rows(path)[:keep]))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, without those that a kill may have left torn."""
    rows = (_parse(line) for line in path.read_bytes().splitlines())
    return [row for row in rows if row is not None]


def replace_file(path: Path, text: str) -> None:
    """Write a text so that a reader finds either the old file or the whole new one."""
    draft = path.with_name(f".{path.name}.tmp")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _place(iteration: int, step: int, seconds: float) -> Event:
    """Where in the run a line belongs."""
    return {"iteration": iteration, "step": step, "seconds": round(seconds, 3)}


def _number(value: float) -> float | None:
    if isinstance(value, int):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
