r"""Equations and inequalities: ``x=5``, ``2<x\le 3``, ``5x-7y=-4``."""

import re
from dataclasses import dataclass

from expert_iteration.grading.algebra import identical, proportion
from expert_iteration.grading.brackets import split

_SIGNS = {
    "=": "=",
    "<": "<",
    ">": ">",
    r"\le": r"\le",
    r"\ge": r"\ge",
    r"\ne": r"\ne",
    r"\in": r"\in",
    r"\approx": r"\approx",
    r"\equiv": r"\equiv",
    r"\sim": r"\sim",
}
_MIRRORED = {"=": "=", "<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}
_OPEN_END = {"<": ("(", ")"), r"\le": ("[", "]")}
_ASIDE = re.compile(r"\\text\{[^{}]*\}|_(?:\w|\{[^{}]*\})|(?<=[A-Za-z])\([^()]*\)|\^\{-1\}|\\[A-Za-z]+")
_LETTER = re.compile(r"[A-Za-z]")
_NOT_IN_NAME = re.compile(r"[\d^]|^-")


@dataclass(frozen=True, slots=True)
class Relation:
    """``sides[0] signs[0] sides[1] signs[1] ...``; a text that relates nothing has one side."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]

    def mirrored(self) -> "Relation | None":
        """The same, read from the right; None for signs that have no mirror image."""
        if not all(sign in _MIRRORED for sign in self.signs):
            return None
        return Relation(self.sides[::-1], tuple(_MIRRORED[sign] for sign in reversed(self.signs)))


def relation_of(text: str) -> Relation:
    """Take a normal text apart at its relation signs; the ``k=1`` under a sum is none."""
    sides, signs = split(text, _SIGNS.__contains__)
    return Relation(tuple(sides), tuple(signs))


def relates(text: str) -> bool:
    return len(relation_of(text).signs) > 0


def subject(text: str) -> tuple[str, str] | None:
    r"""Name and value in ``x=5``, ``P(A)=\frac12``, ``AB+BC=2+3=5``; None when a text is not of this kind.

    A name holds no number outside of its indices: ``x+1=5`` says something of x and does not name the 5.
    """
    relation = relation_of(text)
    name, *values = relation.sides
    if not values or not set(relation.signs) <= {"=", r"\in", r"\approx"} or not _is_name(name):
        return None
    value = _common(values, relation.signs[1:])
    return None if value is None else (name.replace(" ", ""), value)


def computed(text: str) -> str:
    """The end of a true chain of numbers, ``5`` for ``2+3=5``; any other text as it is."""
    relation = relation_of(text)
    value = _common(relation.sides, relation.signs)
    return text if value is None else value


def equal(answer: str, gold: str) -> bool | None:
    """Whether two relations say the same, up to a constant factor and the direction they are read in."""
    found, wanted = relation_of(answer), relation_of(gold)
    if len(found.signs) != len(wanted.signs):
        return False
    verdicts = [_same(each, wanted) for each in (found, found.mirrored()) if each is not None]
    if True in verdicts:
        return True
    return None if None in verdicts else False


def interval(text: str) -> str | None:
    r"""``(2,3]`` for ``2<x\le 3``, ``(5,\infty)`` for ``x>5``; None when a text is no such inequality."""
    relation: Relation | None = relation_of(text)
    if relation and relation.signs and relation.signs[0] in (">", r"\ge"):
        relation = relation.mirrored()
    if relation is None or not relation.signs or not set(relation.signs) <= set(_OPEN_END):
        return None
    sides = relation.sides
    names = [_is_name(side) for side in sides]
    left, right = _OPEN_END[relation.signs[0]][0], _OPEN_END[relation.signs[-1]][1]
    if names == [False, True, False]:
        return f"{left}{sides[0]},{sides[2]}{right}"
    if names == [True, False]:
        return rf"(-\infty,{sides[1]}{right}"
    return rf"{left}{sides[0]},\infty)" if names == [False, True] else None


def _is_name(text: str) -> bool:
    bare = _ASIDE.sub("", text)
    return _NOT_IN_NAME.search(bare) is None and (bare != text or _LETTER.search(bare) is not None)


def _common(values: list[str] | tuple[str, ...], signs: tuple[str, ...]) -> str | None:
    """The last of equal values; the exact one before a rounded one; None when they are not equal."""
    exact = values[: signs.index(r"\approx") + 1] if r"\approx" in signs else values
    if len(exact) > 1 and not set(signs[: len(exact) - 1]) <= {"="}:
        return None
    agree = all(_is_name(value) or identical(value, exact[-1]) is not False for value in exact[:-1])
    return exact[-1] if agree else None


def _same(found: Relation, wanted: Relation) -> bool | None:
    """Whether two chains of the same length agree link by link."""
    verdicts = [
        _same_link(found.sides[i : i + 2], found.signs[i], wanted.sides[i : i + 2], wanted.signs[i])
        for i in range(len(found.signs))
    ]
    return False if False in verdicts else None if None in verdicts else True


def _same_link(found: tuple[str, ...], sign: str, wanted: tuple[str, ...], wanted_sign: str) -> bool | None:
    if sign not in _MIRRORED or wanted_sign not in _MIRRORED:
        return None
    factor = proportion((found[0], found[1]), (wanted[0], wanted[1]))
    if not factor:
        return None if factor is None else False
    return sign == (wanted_sign if factor > 0 else _MIRRORED[wanted_sign])
