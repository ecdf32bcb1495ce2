r"""The shape of an answer: tuples, intervals, sets and lists keep their brackets, count and order.

math-verify forgives all three (``(1,2)`` for ``[1,2]``, ``2,1`` for ``1,2``), so answers are taken apart
here and only their leaves are compared.
"""

import re
from dataclasses import dataclass

from expert_iteration.grading.exact import number, quantity

_TOKENS = re.compile(r"\\begin\{\w+\}|\\end\{\w+\}|\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENING = ("(", "[", "{", r"\{", r"\begin")
_CLOSING = (")", "]", "}", r"\}", r"\end")
_GROUPING = {("(", ")"), ("{", "}")}
_SUBJECT = re.compile(r"([A-Za-z]|[A-Za-z]\([a-z]\)|\\[a-z]{2,7})(?:=|\\in(?![A-Za-z]))(.+)", re.DOTALL)
_RELATION = re.compile(r"[=<>]|\\(?:leq?|geq?|neq?|lt|gt|approx|equiv|sim|in)")


@dataclass(frozen=True, slots=True)
class Shape:
    """Outer brackets (empty for a bare list or a single thing) and what they hold."""

    brackets: tuple[str, str]
    parts: tuple[str, ...]


def leaves(answer: str, gold: str) -> list[tuple[str, str]] | None:
    """Pairs of normal texts that must all agree, or None when the two differ in structure.

    ``x=5`` against ``5`` leaves out the subject; ``x+1=5`` against ``5`` differs in structure.
    """
    answer, gold = _without_subject(answer, gold)
    found, wanted = shape_of(answer), shape_of(gold)
    if found.brackets != wanted.brackets or len(found.parts) != len(wanted.parts):
        return None
    if found.brackets == ("", "") and len(found.parts) == 1:
        (answer,), (gold,) = found.parts, wanted.parts
        return [(answer, gold)] if _relates(answer) == _relates(gold) else None
    nested = [leaves(part, other) for part, other in zip(found.parts, wanted.parts, strict=True)]
    pairs = [pair for inner in nested if inner is not None for pair in inner]
    return None if None in nested else pairs


def shape_of(text: str) -> Shape:
    """Take the outermost layer of a normal text apart; grouping parentheses are no layer."""
    while True:
        if number(quantity(text).body) is not None:
            return Shape(("", ""), (text,))
        brackets, inner = _outer_brackets(text)
        parts = _split_at_commas(inner)
        if brackets not in _GROUPING or (len(parts) > 1 and brackets[0] == "("):
            return Shape(brackets, tuple(parts))
        text = inner


def _without_subject(answer: str, gold: str) -> tuple[str, str]:
    mine, theirs = _SUBJECT.fullmatch(answer), _SUBJECT.fullmatch(gold)
    if mine and theirs and mine[1] != theirs[1]:
        return answer, gold
    return _rest(mine, answer), _rest(theirs, gold)


def _rest(match: re.Match[str] | None, text: str) -> str:
    """What is said of the subject; a chain or a system of equations stays whole."""
    return text if match is None or _relates(match[2]) else match[2]


def _relates(text: str) -> bool:
    """Whether a text is an equation or an inequality; the ``k=1`` under a sum makes none."""
    tokens = _TOKENS.findall(text)
    return any(
        depth == 0 and _RELATION.fullmatch(token)
        for token, depth in zip(tokens, _depths(tokens), strict=True)
    )


def _outer_brackets(text: str) -> tuple[tuple[str, str], str]:
    """The pair of brackets around all of the text, and the text inside it."""
    tokens = _TOKENS.findall(text)
    if len(tokens) < 2 or tokens[0] not in _OPENING or tokens[-1] not in _CLOSING:
        return ("", ""), text
    depths = _depths(tokens)
    if min(depths[:-1]) < 1 or depths[-1] != 0:
        return ("", ""), text
    return (tokens[0], tokens[-1]), text[len(tokens[0]) : -len(tokens[-1])].strip()


def _split_at_commas(text: str) -> list[str]:
    tokens = _TOKENS.findall(text)
    parts = [""]
    for token, depth in zip(tokens, _depths(tokens), strict=True):
        if token == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts]


def _depths(tokens: list[str]) -> list[int]:
    """Bracket depth after each token; an environment such as a matrix is a bracket."""
    depth, depths = 0, []
    for token in tokens:
        name = token.partition("{")[0] if token[0] == "\\" and len(token) > 2 else token
        depth += (name in _OPENING) - (name in _CLOSING)
        depths.append(depth)
    return depths
