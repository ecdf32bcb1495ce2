r"""The shape of an answer: tuples, intervals, sets, unions and matrices keep their brackets, count and order.

math-verify forgives all three (``(1,2)`` for ``[1,2]``, ``2,1`` for ``1,2``), so answers are taken apart
here and only their leaves are compared. What a set, a union or a ``\pm`` holds has no order.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from expert_iteration.grading.brackets import CLOSING, OPENING, depths, split, tokens_of
from expert_iteration.grading.exact import number, quantity
from expert_iteration.grading.leaf import decide
from expert_iteration.grading.relations import computed, interval, relates, subject

SINGLE, LIST, SET, UNION = "single", "list", "set", "union"
_UNORDERED = (SET, UNION)
MAX_UNORDERED = 20
"""Parts without order that are matched; more are taken in the order in which they are written."""
_MATRIX = re.compile(
    r"((?:(?!\\begin).)*?)(?:\\cdot|\\times)?\\begin\{matrix\}((?:(?!\\begin|\\end).)*)\\end\{matrix\}",
    re.DOTALL,
)
_SPOKEN = re.compile(r"[,;]? ?(?:\\text\{,? ?(?:and|or),?\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])) ?")
_REALS = re.compile(r"^(?:\\mathbb\{R\}|\\text\{all real numbers\}|all real numbers)$")
_JOINING = frozenset({",", ";"})
_SIGNS = re.compile(r"\\(pm|mp)(?![A-Za-z]) ?")

Leaves = list[tuple[str, str]]
"""Pairs of normal texts, answer and gold, that must all agree."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What holds the parts of an answer together."""

    kind: str
    """SINGLE, LIST (without brackets), SET, UNION, the outer brackets such as ``(]``, or ``matrix 2x3``."""
    parts: tuple[str, ...]


def leaves(answer: str, gold: str, *, any_order: bool = False) -> Leaves | None:
    """Pairs of normal texts that must all agree, or None when the two differ in structure.

    ``x=5`` against ``5`` leaves out the subject; ``x+1=5`` against ``5`` differs in structure. With
    `any_order` a list without brackets is a set: all solutions, rather than a first and a second one.
    """
    answer, gold = _alike(*_without_subject(_written(answer), _written(gold)))
    found, wanted = shape_of(answer), shape_of(gold)
    kinds = {found.kind, wanted.kind}
    if (SET in kinds and kinds <= {SINGLE, LIST, SET}) or (any_order and kinds == {LIST}):
        found, wanted = Shape(SET, found.parts), Shape(SET, wanted.parts)
    if kinds - {SINGLE} and SINGLE in kinds and r"\begin{matrix}" in found.parts[0] + wanted.parts[0]:
        return [(answer, gold)]
    if (found.kind, wanted.kind) == (LIST, SINGLE):
        # The same value twice, as "1/4 or 0.25", hedges nothing.
        wanted = Shape(LIST, wanted.parts * len(found.parts))
    if found.kind != wanted.kind or len(found.parts) != len(wanted.parts):
        return None
    if found.kind == SINGLE:
        (answer,), (gold,) = found.parts, wanted.parts
        return [(answer, gold)] if relates(answer) == relates(gold) else None
    if found.kind in _UNORDERED and len(found.parts) <= MAX_UNORDERED:
        return _matched(list(found.parts), list(wanted.parts))
    return _in_order(found.parts, wanted.parts)


def shape_of(text: str) -> Shape:
    """Take the outermost layer of a normal text apart; grouping parentheses are no layer."""
    while True:
        if number(quantity(text).body) is not None:
            return Shape(SINGLE, (text,))
        if match := _MATRIX.fullmatch(text):
            return _matrix(match[1], match[2])
        pieces, _ = split(text, r"\cup".__eq__)
        if len(pieces) > 1:
            return Shape(UNION, tuple(pieces))
        brackets, inner = _outer_brackets(text)
        pieces, _ = split(inner, _JOINING.__contains__)
        if brackets in ("()", "{}") and len(pieces) == 1:
            text = inner
        elif brackets in ("", "{}", r"\{\}"):
            return _loose(pieces, braces=brackets == r"\{\}")
        else:
            return Shape(brackets, tuple(pieces))


def _written(text: str) -> str:
    """A text without words: "and" is a comma, "all real numbers" an interval."""
    return _REALS.sub(r"(-\\infty,\\infty)", _SPOKEN.sub(",", text))


def _loose(pieces: list[str], *, braces: bool) -> Shape:
    r"""A list, a set or a single thing; ``\pm`` stands for a set of two."""
    parts = tuple(part for piece in pieces for part in _both_signs(piece))
    if braces or len(parts) > len(pieces):
        return Shape(SET, parts)
    return Shape(LIST if len(parts) > 1 else SINGLE, parts)


def _both_signs(text: str) -> list[str]:
    if not _SIGNS.search(text):
        return [text]
    upper = _SIGNS.sub(lambda match: "+" if match[1] == "pm" else "-", text)
    lower = _SIGNS.sub(lambda match: "-" if match[1] == "pm" else "+", text)
    return [upper.removeprefix("+"), lower.removeprefix("+")]


def _matrix(factor: str, content: str) -> Shape:
    """A matrix; a factor before it goes to each entry."""
    rows = [split(row, "&".__eq__)[0] for row in split(content, r"\\".__eq__)[0]]
    kind = f"matrix {len(rows)}x{max(map(len, rows))}"
    return Shape(kind, tuple(_scaled(factor, cell) for row in rows for cell in row))


def _scaled(factor: str, cell: str) -> str:
    values = number(factor), number(cell)
    if values[0] is not None and values[1] is not None:
        return str(values[0] * values[1])
    return f"{factor}({cell})" if factor else cell


def _without_subject(answer: str, gold: str) -> tuple[str, str]:
    mine, theirs = _subject(answer), _subject(gold)
    if mine and theirs:
        return (mine[1], theirs[1]) if mine[0] == theirs[0] else (answer, gold)
    if mine and (not relates(gold) or _as_set(gold)):
        return mine[1], gold
    if theirs and (not relates(answer) or _as_set(answer)):
        return answer, theirs[1]
    if relates(gold) or _says_more(answer):
        return answer, gold
    return computed(answer), gold


def _subject(text: str) -> tuple[str, str] | None:
    return None if _says_more(text) else subject(text)


def _says_more(text: str) -> bool:
    """Whether a text says something of a second subject, as ``x=1,y=2`` does."""
    _, *others = split(text, _JOINING.__contains__)[0]
    return any(relates(other) for other in others)


def _alike(answer: str, gold: str) -> tuple[str, str]:
    """Write an inequality as an interval when the other of the two is no relation."""
    if relates(answer) and not relates(gold):
        return _as_set(answer) or answer, gold
    if relates(gold) and not relates(answer):
        return answer, _as_set(gold) or gold
    return answer, gold


def _as_set(text: str) -> str | None:
    intervals = [interval(piece) for piece in split(text, _JOINING.__contains__)[0]]
    found = [each for each in intervals if each is not None]
    return r"\cup".join(found) if len(found) == len(intervals) else None


def _in_order(found: Iterable[str], wanted: Iterable[str]) -> Leaves | None:
    pairs: Leaves = []
    for part, other in zip(found, wanted, strict=True):
        inner = leaves(part, other)
        if inner is None:
            return None
        pairs += inner
    return pairs


def _matched(found: list[str], wanted: list[str]) -> Leaves | None:
    """Pair off what is certainly equal; what is left must agree in the order in which it is written."""
    open_parts = []
    for part in wanted:
        partner = next((other for other in found if _certainly_equal(other, part)), None)
        if partner is None:
            open_parts.append(part)
        else:
            found.remove(partner)
    return _in_order(found, open_parts)


def _certainly_equal(answer: str, gold: str) -> bool:
    pairs = leaves(answer, gold)
    return pairs is not None and all(decide(*pair) for pair in pairs)


def _outer_brackets(text: str) -> tuple[str, str]:
    """The pair of brackets around all of the text, empty without one, and the text inside it."""
    tokens = tokens_of(text)
    if len(tokens) < 2 or tokens[0] not in OPENING or tokens[-1] not in CLOSING:
        return "", text
    found = depths(tokens)
    if min(found[:-1]) < 1 or found[-1] != 0:
        return "", text
    return tokens[0] + tokens[-1], text[len(tokens[0]) : -len(tokens[-1])].strip()
