"""A few of the rollouts of an iteration, for those who do not read all of them."""

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from expert_iteration.reporting.redact import masked
from expert_iteration.reporting.rollouts import file_of

COLUMNS = ("iteration", "prompt_id", "question", "gold", "response", "verdict", "reward", "fate")
"""Of a row, in the order in which they are shown."""
LONGEST = 4000
"""Characters of a text that are shown."""

Row: TypeAlias = dict[str, Any]
"""COLUMNS of one rollout: numbers, null and texts without secrets, which are shown as they stand."""


def excerpt(run_dir: Path, iteration: int, count: int) -> list[Row]:
    """At most `count` rollouts of an iteration, every one as likely as any other, in the order written.

    The same file gives the same ones. Lines that a kill left torn are passed over.
    """
    path = run_dir / "rollouts" / file_of(iteration)
    if count == 0 or not path.is_file():
        return []
    draw = random.Random(iteration)
    drawn: list[tuple[int, bytes]] = []
    with path.open("rb") as lines:
        # Algorithm R (Vitter 1985, ACM TOMS 11): the file may be larger than memory
        for number, line in enumerate(lines):
            if len(drawn) < count:
                drawn.append((number, line))
            elif (place := draw.randrange(number + 1)) < count:
                drawn[place] = (number, line)
    return list(_rows(line for _, line in sorted(drawn)))


def _rows(lines: Iterator[bytes]) -> Iterator[Row]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        yield {column: _shown(row, column) for column in COLUMNS}


def _shown(row: Mapping[str, Any], column: str) -> Any:
    value = row.get(column)
    if not isinstance(value, str):
        return value
    # a lone surrogate is no text in UTF-8, which all files of loggers are
    text = masked(value.encode("utf-8", "backslashreplace").decode("utf-8"))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
