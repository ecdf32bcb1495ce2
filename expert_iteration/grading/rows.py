"""Answers to judge as lines of JSON, and their verdicts as lines of JSON in the same order."""

import json
import math
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

from expert_iteration.grading.grader import Grader, Response
from expert_iteration.grading.lines import LONGEST_LINE
from expert_iteration.grading.styles import INSTRUCTION_STYLE
from expert_iteration.types import Outcome, Verdict

Identity: TypeAlias = str | int | float | None
"""The `id` of a row, as it stands there; None if the row does not say."""


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


_READER = json.JSONDecoder(parse_constant=_refuse_constant)
_WRITER = json.JSONEncoder(allow_nan=False)


class Row(NamedTuple):
    """One line of the input."""

    id: Identity
    question: Response | Verdict
    """What is to be judged, or why it cannot be."""


class BadRow(ValueError):
    """A row cannot be judged. The message says what is wrong with it."""


def judged(
    grader: Grader, style: str, bundles: Iterable[Sequence[bytes]]
) -> Iterator[list[tuple[Row, Verdict]]]:
    """The rows of each bundle of lines with their verdicts; blank lines are no rows."""
    number = 0
    for lines in bundles:
        numbered = list(enumerate(lines, start=number + 1))
        number += len(lines)
        rows = [read_row(line, place, style) for place, line in numbered if line.strip()]
        verdicts = iter(grader.grade([row.question for row in rows if isinstance(row.question, Response)]))
        yield [(row, row.question if isinstance(row.question, Verdict) else next(verdicts)) for row in rows]


def read_row(line: bytes, number: int, style: str) -> Row:
    """Line `number` of the input. What cannot be judged gets a verdict that abstains and says why."""
    identity: Identity = None
    try:
        fields = _fields(line)
        identity = _identity(fields)
        response = _field(fields, "response")
        if not isinstance(response, str):
            raise BadRow(f"response is {_kind(response)}, not a text")
        return Row(identity, Response(style, response, _gold(fields, style)))
    except BadRow as problem:
        return Row(identity, Verdict(Outcome.ERROR, f"line {number}: {problem}"))


def write_row(row: Row, verdict: Verdict) -> str:
    """One line of JSON in ASCII; `success` and `reward` are null when the grader abstains."""
    values: dict[str, Any] = {
        "id": row.id,
        "success": None if verdict.abstains else verdict.success,
        "reward": None if verdict.abstains else verdict.answer_reward,
        "reason": verdict.reason,
        "outcome": verdict.outcome.value,
        "format_reward": verdict.format_reward,
    }
    if verdict.counts:
        values["counts"] = dict(verdict.counts)
    return _WRITER.encode(values) + "\n"


def _fields(line: bytes) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise BadRow(f"longer than {LONGEST_LINE:,} bytes")
    try:
        fields = _READER.decode(line.removeprefix(BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8 (byte {error.start + 1})") from error
    except json.JSONDecodeError as error:
        raise BadRow(f"not JSON ({error.msg})") from error
    except RecursionError as error:
        raise BadRow("not JSON that can be read (nested too deeply)") from error
    except ValueError as error:
        raise BadRow(f"not JSON that can be read ({str(error).split(';')[0]})") from error
    if not isinstance(fields, dict):
        raise BadRow(f"{_kind(fields)}, not an object with id, response and gold")
    return fields


def _identity(fields: dict[str, Any]) -> Identity:
    identity = _field(fields, "id")
    if isinstance(identity, str) or _is_number(identity):
        return identity
    raise BadRow(f"id is {_kind(identity)}, neither a text nor a number")


def _gold(fields: dict[str, Any], style: str) -> str:
    gold = _field(fields, "gold")
    if isinstance(gold, str):
        return gold
    if isinstance(gold, dict) and style == INSTRUCTION_STYLE:
        return json.dumps(gold)
    if not _is_number(gold):
        raise BadRow(f"gold is {_kind(gold)}, neither a text nor a number")
    return str(gold) if isinstance(gold, int) else f"{Decimal(repr(gold)):f}"


def _field(fields: dict[str, Any], name: str) -> Any:
    if name not in fields:
        raise BadRow(f"no {name}")
    return fields[name]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
