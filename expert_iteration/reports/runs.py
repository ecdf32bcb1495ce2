"""The files of a run, read back: what it was told to do, what it measured, what it said."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from expert_iteration.reporting.jsonl import Event, read_events

LEVEL = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ([A-Z]+) ")
"""How a line of run.log begins."""


class NoRun(Exception):
    """A folder that holds no run. The message says what it lacks."""


@dataclass(frozen=True)
class RunFiles:
    """A run folder. What a run that is going on or was killed has not written yet is empty."""

    folder: Path

    @staticmethod
    def of(folder: Path) -> "RunFiles":
        """
        Raises:
            NoRun: there is no metrics.jsonl.
        """
        if not (folder / "metrics.jsonl").is_file():
            raise NoRun(f"{folder} holds no metrics.jsonl; name the folder of a run, as in outputs/<run>.")
        return RunFiles(folder)

    @cached_property
    def events(self) -> list[Event]:
        """The lines of metrics.jsonl that hold numbers, in the order in which they were written."""
        return read_events(self.folder / "metrics.jsonl")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json; empty while a run is going on, and after it was killed."""
        return _json(self.folder / "summary.json")

    @cached_property
    def data(self) -> dict[str, Any]:
        """data_report.json: what was read, dropped and why."""
        return _json(self.folder / "data_report.json")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The composed configuration; empty for a run that was not started by Hydra."""
        return _yaml(self.folder / ".hydra" / "config.yaml") or {}

    @cached_property
    def overrides(self) -> list[str]:
        """What the command line said, such as ``seed=1``."""
        return _yaml(self.folder / ".hydra" / "overrides.yaml") or []

    def by_iteration(self, key: str) -> dict[int, float]:
        """The last value of a metric in each iteration that measured it; iteration 0 is before training."""
        values = {
            int(event["iteration"] or 0): value
            for event in self.events
            if (value := event.get(key)) is not None
        }
        return dict(sorted(values.items()))

    def by_step(self, key: str) -> dict[int, float]:
        """The last value of a metric at each optimizer step that measured it."""
        values = {
            int(event["step"] or 0): value for event in self.events if (value := event.get(key)) is not None
        }
        return dict(sorted(values.items()))

    def summed(self, key: str) -> dict[int, float]:
        """The sum of a metric over the events of each iteration that measured it."""
        sums: dict[int, float] = {}
        for event in self.events:
            if (value := event.get(key)) is not None:
                iteration = int(event["iteration"] or 0)
                sums[iteration] = sums.get(iteration, 0.0) + value
        return dict(sorted(sums.items()))

    def keys(self, prefix: str) -> list[str]:
        """Metrics whose name begins so, in the order in which they came up."""
        names = dict.fromkeys(key for event in self.events for key in event)
        return [name for name in names if name.startswith(prefix)]

    @cached_property
    def warnings(self) -> list[str]:
        """Lines of run.log that warn, or tell of an error, with what follows them."""
        path = self.folder / "run.log"
        if not path.is_file():
            return []
        lines, wanted = [], False
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if level := LEVEL.match(line):
                wanted = level[1] in ("WARNING", "ERROR", "CRITICAL")
            if wanted:
                lines.append(line)
        return lines

    @cached_property
    def newest_checkpoint(self) -> Path | None:
        """The last one that was whole when it was written, as checkpoint.py says; None without any."""
        found = sorted((self.folder / "checkpoints").glob("step_*/manifest.json"))
        return found[-1].parent if found else None

    def rollouts(self) -> Iterator[dict[str, Any]]:
        """The rows of rollouts/, iteration by iteration, read as they are asked for."""
        for path in sorted((self.folder / "rollouts").glob("iteration_*.jsonl")):
            with path.open("rb") as lines:
                for line in lines:
                    if (row := _row(line)) is not None:
                        yield row


def _row(line: bytes) -> dict[str, Any] | None:
    """None: a kill has left the line torn."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _yaml(path: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(path), resolve=True) if path.is_file() else None
