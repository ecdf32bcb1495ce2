"""What became of the rows: ``data_report.json``, and the same in one line."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from expert_iteration.data.checking import Dropped, only_spelled
from expert_iteration.data.loading import Part
from expert_iteration.grading.styles import INSTRUCTION_STYLE

LISTED = 100
"""Rows that the report lists for each reason; the others are counted."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartReport:
    """One dataset in one split."""

    part: Part
    used: int
    """Examples that became prompts: those that fit, of the first `eval.limit` when they evaluate."""
    too_long: int = 0
    """Examples whose prompt leaves no room for `sampling.max_tokens` in `model.max_length`."""

    @property
    def line(self) -> str:
        part = self.part
        words = [f"{self.used:,} of {part.rows:,} rows"]
        words += [f"{len(part.dropped):,} dropped"] if part.dropped else []
        words += [f"{self.too_long:,} too long"] if self.too_long else []
        return f"{part.member.name} {part.split} {', '.join(words)}"

    def as_json(self) -> dict[str, Any]:
        part = self.part
        return {
            "dataset": part.member.name,
            "split": part.split,
            "source": part.source,
            "rows": part.rows,
            "kept": len(part.examples),
            "dropped": _by_reason(part.dropped),
            "prompts_too_long": self.too_long,
            "used": self.used,
            "notes": self.notes,
        }

    @property
    def notes(self) -> list[str]:
        style = self.part.member.dataset.prompt.style
        golds = [] if style == INSTRUCTION_STYLE else [example.gold for example in self.part.examples]
        spelled = sum(only_spelled(gold) for gold in golds)
        count = f"golds in a form that is compared by its spelling alone, not by its value: {spelled:,}"
        return [note for note in (self.part.warning, count if spelled else "") if note]


@dataclass(frozen=True)
class DataReport:
    """All parts of a task, training before evaluation."""

    parts: Sequence[PartReport]

    @property
    def line(self) -> str:
        return "data: " + "; ".join(part.line for part in self.parts)

    def as_json(self) -> dict[str, Any]:
        return {"parts": [part.as_json() for part in self.parts]}

    def announce(self) -> None:
        """Log the line, and whatever the user should know before spending hours."""
        dropped = any(part.part.dropped for part in self.parts)
        remedy = " (data_report.json lists what was dropped)" if dropped else ""
        logger.log(logging.WARNING if dropped else logging.INFO, "%s%s", self.line, remedy)
        for part in self.parts:
            if part.part.warning:
                logger.warning("%s", part.part.warning)


def _by_reason(dropped: Sequence[Dropped]) -> dict[str, dict[str, Any]]:
    texts: dict[str, list[str]] = defaultdict(list)
    for row in dropped:
        texts[row.reason].append(row.text)
    return {reason: {"count": len(found), "rows": found[:LISTED]} for reason, found in texts.items()}
