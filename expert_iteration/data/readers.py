"""The fields of each dataset: one function per dataset turns a row into an `Example`, or refuses it."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any, TypeAlias

from expert_iteration.config import FieldsConfig
from expert_iteration.grading.styles import last_boxed

MAX_CHARACTERS = 1_000_000
"""Longest text of one field."""

Fields: TypeAlias = Mapping[str, Any]


class BadRow(ValueError):
    """A row that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a dataset, whatever its fields were called."""

    question: str
    gold: str
    reasoning: str = ""
    level: str = ""
    subject: str = ""
    id: str = ""
    """The dataset's own; empty when it has none."""
    number: int = 0
    """Position among the rows of its source, bad ones included, from 0."""
    place: str = ""
    """Where it stands: ``train.jsonl:17``."""


def _jsonl(row: Fields, fields: FieldsConfig) -> Example:
    """Anyone's own rows, and those of the demo."""
    return Example(
        text(row, fields.question),
        number_or_text(row, fields.gold),
        text(row, fields.reasoning, optional=True),
        level(row, fields.level),
        label(row, fields.subject),
        label(row, fields.id),
    )


def _gsm8k(row: Fields, _: FieldsConfig) -> Example:
    """`question`, and `answer` that ends in ``#### 72``; numbers lose their thousands separators."""
    reasoning, mark, gold = text(row, "answer").rpartition("####")
    if not mark:
        raise BadRow("the answer has no '####'; every GSM8K answer ends in '#### <number>'")
    if not gold.strip():
        raise BadRow("nothing stands after the '####' of the answer")
    return Example(
        text(row, "question"),
        gold.strip().replace(",", ""),
        _without_calculator(reasoning.strip()),
        id=label(row, "id"),
    )


def _math(row: Fields, _: FieldsConfig) -> Example:
    """`problem`, and `solution` with the answer in its last box unless `answer` gives it."""
    solution = text(row, "solution")
    gold = number_or_text(row, "answer") if row.get("answer") is not None else last_boxed(solution)
    if not gold:
        raise BadRow("there is neither an answer nor a \\boxed{} in the solution")
    return Example(
        text(row, "problem"),
        gold,
        solution,
        level=level(row, "level"),
        subject=label(row, "subject") or label(row, "type"),
        id=label(row, "unique_id"),
    )


def _ifeval(row: Fields, _: FieldsConfig) -> Example:
    """`prompt`, and the instructions to meet: the gold is their JSON, without arguments that are null."""
    names, arguments = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(names, list) or not isinstance(arguments, list):
        raise BadRow("fields 'instruction_id_list' and 'kwargs' are not two lists")
    if not all(isinstance(given, dict) for given in arguments):
        raise BadRow("field 'kwargs' is not a list of objects")
    given = [{key: value for key, value in one.items() if value is not None} for one in arguments]
    gold = json.dumps({"instruction_id_list": names, "kwargs": given})
    return Example(text(row, "prompt"), gold, id=label(row, "key"))


READERS: dict[str, Callable[[Fields, FieldsConfig], Example]] = {
    "demo": _jsonl,
    "gsm8k": _gsm8k,
    "math": _math,
    "ifeval": _ifeval,
    "jsonl": _jsonl,
}
"""`task.name` -> what reads a row of it. Raises `BadRow`."""


def text(row: Fields, name: str, optional: bool = False) -> str:
    """A field that must hold a text with something in it; an optional one may be absent or empty.

    Raises:
        BadRow: it does not, or the text cannot be used.
    """
    value = row.get(name)
    if optional and value in (None, ""):
        return ""
    if name not in row:
        raise BadRow(f"field {name!r} is missing; there are {short(sorted(row))}")
    if not isinstance(value, str) or not (value.strip() or optional):
        raise BadRow(f"field {name!r} is {short(value)}, not a text")
    if len(value) > MAX_CHARACTERS:
        raise BadRow(f"field {name!r} has {len(value):,} characters, more than {MAX_CHARACTERS:,}")
    if "\0" in value:
        raise BadRow(f"field {name!r} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"field {name!r} is not UTF-8 (character {error.start + 1})") from error
    return value


def number_or_text(row: Fields, name: str) -> str:
    """A gold: a text, or a finite number, which is written out.

    Raises:
        BadRow: it is neither.
    """
    value = row.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    return text(row, name).strip()


def label(row: Fields, name: str) -> str:
    """A name or number such as a level; empty when it is absent.

    Raises:
        BadRow: it is something else.
    """
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(row, name, optional=True).strip()


def level(row: Fields, name: str) -> str:
    """A difficulty, as evaluations name it: 3 and ``Level 3`` are ``level_3``, other words stay.

    Raises:
        BadRow: it is neither a name nor a number.
    """
    written = label(row, name)
    bare = written.removeprefix("Level ")
    return f"level_{bare}" if bare != written or bare.isdecimal() else written


def _without_calculator(reasoning: str) -> str:
    """GSM8K's solutions carry `<<48/2=24>>` marks for a calculator; people do not write them."""
    return "".join(part.rpartition(">>")[2] for part in reasoning.split("<<"))
