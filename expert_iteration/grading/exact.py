r"""Equality that needs no algebra: the same text, the same exact number, the same word.

`same` answers True, False or None (undecided), and True only when it is certain. Two conventions of the
datasets count as certain: a unit may be left out (``36`` for ``\$36``, but ``5 cm`` is not ``5 m``), and
a percent sign after a number above 1 (``50`` for ``50\%``).
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from expert_iteration.grading.spelling import normal
from expert_iteration.grading.units import PERCENT, agree, unit_name

__all__ = ["Quantity", "normal", "number", "quantity", "same"]

_PLAIN_NUMBER = re.compile(r"-?\d+", re.ASCII)
_DECIMAL = re.compile(r"[-+]?(?:(?:[1-9]\d{0,2}(?:(?:,\d{3})+|(?: \d{3})+)|\d+)(?:\.\d*)?|\.\d+)", re.ASCII)
_FRACTION = re.compile(r"([-+]?)\\frac\{([-+]?\d+)\}\{([-+]?\d+)\}|([-+]?\d+)/(\d+)", re.ASCII)
_MIXED = re.compile(r"([-+]?)(\d+)(?:\\frac\{(\d+)\}\{(\d+)\}| (\d+)/(\d+))", re.ASCII)
_REPEATING = re.compile(r"([-+]?)(\d*)\.(\d*)\\(?:overline|bar)\{(\d+)\}", re.ASCII)
_SCALED = re.compile(r"(.*\d) ?(?:\\text\{)?(hundred|thousand|million|billion|trillion)\}?")
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
LITERAL = re.compile(r"[-+]?\d[\dA-Z.]*_(?:\w|\{\w+\})|\d+(?::\d+)+", re.ASCII)
"""A number in a base, a clock time or a ratio: equal only when written alike."""
_WORDS = re.compile(r"\\text\{[^{}]+\}|\(?[A-Za-z]{4,}(?: [A-Za-z]+)*\)?")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_IN_PARENTHESES = re.compile(r"\(([^(),]*)\)")
_PUNCTUATION = re.compile(r"[ .,;:'\"()!]|(?<=[a-z])-(?=[a-z])")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A normal text without its unit: ``\\$36`` is the body ``36`` in dollars."""

    body: str
    unit: str
    """As units.py names it; empty when there is none."""


def number(body: str) -> Fraction | None:
    """The exact value of an integer, decimal, fraction or mixed number in normal spelling, else None."""
    if _DECIMAL.fullmatch(body):
        return Fraction(body.replace(",", "").replace(" ", ""))
    if match := _FRACTION.fullmatch(body):
        sign, top, bottom = match[1], match[2] or match[4], match[3] or match[5]
        return _ratio(sign or "", int(top), int(bottom))
    if match := _MIXED.fullmatch(body):
        whole, top, bottom = int(match[2]), int(match[3] or match[5]), int(match[4] or match[6])
        # An improper fraction after a whole number reads as a product too: not certain.
        return _ratio(match[1], whole * bottom + top, bottom) if top < bottom else None
    if match := _REPEATING.fullmatch(body):
        fixed, repeated = match[2] + match[3], match[4]
        nines = (10 ** len(repeated) - 1) * 10 ** len(match[3])
        return _ratio(match[1], int(fixed + repeated) - int(fixed or "0"), nines)
    if (match := _SCALED.fullmatch(body)) and (value := number(match[1])) is not None:
        return value * _SCALES[match[2]]
    return None


def quantity(text: str) -> Quantity:
    """Split a normal text in body and unit; money signs, percent and degrees are units."""
    if _PLAIN_NUMBER.fullmatch(text):
        return Quantity(text, "")
    body, unit = unit_name(text)
    return Quantity(body, unit)


def same(answer: str, gold: str) -> bool | None:
    """Whether two non-empty normal texts mean the same, or None when that takes algebra to decide."""
    if answer == gold:
        return True
    if _PLAIN_NUMBER.fullmatch(answer) and _PLAIN_NUMBER.fullmatch(gold):
        return int(answer) == int(gold)
    if _plain(answer) == _plain(gold):
        return True
    if _WORDS.fullmatch(gold):
        return _letters(answer) == _letters(gold)
    return _same_quantity(quantity(answer), quantity(gold))


def _same_quantity(answer: Quantity, gold: Quantity) -> bool | None:
    if answer.unit != gold.unit and PERCENT in (answer.unit, gold.unit):
        percent, bare = (answer, gold) if answer.unit == PERCENT else (gold, answer)
        return False if bare.unit else _percent_equals(percent.body, bare.body)
    if not agree(answer.unit, gold.unit):
        return False
    if answer.body == gold.body:
        return True
    left, right = number(answer.body), number(gold.body)
    if left is None or right is None:
        return None
    return left == right


def _percent_equals(percent: str, bare: str) -> bool | None:
    left, right = number(percent), number(bare)
    if left is None or right is None:
        return True if percent == bare else None
    return left / 100 == right or (left == right and right > 1)


def _ratio(sign: str, top: int, bottom: int) -> Fraction | None:
    if bottom == 0:
        return None
    return Fraction(-top if sign == "-" else top, bottom)


def _plain(text: str) -> str:
    """Text without its text commands, nor parentheses around a single thing."""
    if "(" not in text and "\\" not in text:
        return text
    text = _TEXT.sub(r"\1", text).strip()
    inner = _IN_PARENTHESES.fullmatch(text)
    return inner[1] if inner else text


def _letters(text: str) -> str:
    """What tells two words apart: no punctuation and no case."""
    return _PUNCTUATION.sub("", _TEXT.sub(r"\1", text).casefold())
