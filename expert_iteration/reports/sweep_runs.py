"""The runs of a sweep as its report needs them: configuration in one level, final numbers, curves."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from expert_iteration.reporting.jsonl import Event, read_events
from expert_iteration.sweeps.jobs import Job, read_yaml, summary_of

Value: TypeAlias = str | int | float | bool | None
"""Of a key; a list is its text."""
Curve: TypeAlias = dict[float, float]
"""Place in the run -> value."""

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


@dataclass(frozen=True)
class Setting:
    """What a run was told under one key."""

    value: Value
    written: Value
    """As the configuration file has it: a reference to another key stands unresolved."""


@dataclass(frozen=True)
class SweepRun:
    """A job of a sweep that has begun."""

    job: Job

    @property
    def folder(self) -> Path:
        return self.job.folder

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """Key -> what it was set to; group -> which of its options was chosen."""
        written = dict(_leaves(read_yaml(self.folder / ".hydra" / "config.yaml")))
        hydra = read_yaml(self.folder / ".hydra" / "hydra.yaml").get("hydra", {})
        choices = hydra.get("runtime", {}).get("choices", {})
        written |= {group: choice for group, choice in choices.items() if not group.startswith("hydra/")}
        return {key: Setting(_resolved(value, written), value) for key, value in written.items()}

    @cached_property
    def overridden(self) -> dict[str, str]:
        """Key -> text of its last override."""
        pairs = (override.lstrip("+").partition("=") for override in self.job.overrides)
        return {key: value for key, separator, value in pairs if separator}

    @cached_property
    def summary(self) -> dict[str, Any]:
        return summary_of(self.folder)

    @cached_property
    def _events(self) -> list[Event]:
        file = self.folder / "metrics.jsonl"
        return read_events(file) if file.is_file() else []

    def final(self, key: str) -> float | None:
        """Of the last evaluation."""
        return self.summary.get("end", {}).get(key)

    @property
    def questions(self) -> int:
        """Of an evaluation."""
        return round(self.final("eval/n") or 0)

    def by_iteration(self, key: str) -> Curve:
        """The last value in each iteration that measured it; iteration 0 is before training."""
        return self._curve("iteration", key)

    def by_step(self, key: str) -> Curve:
        """The value after each optimizer step that reported it."""
        return self._curve("step", key)

    def _curve(self, place: str, key: str) -> Curve:
        measured = ((event[place], event.get(key)) for event in self._events)
        return dict(sorted((where or 0.0, value) for where, value in measured if value is not None))


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Value]]:
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value) if isinstance(value, list) else value


def _resolved(value: Value, written: Mapping[str, Value]) -> Value:
    """What a reference to another key comes to; one to a function stays as it stands."""
    reference = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return _resolved(written[reference[1]], written) if reference and reference[1] in written else value
