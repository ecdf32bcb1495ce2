r"""Equality that needs no algebra: the same text, the same exact number, the same word.

`same` answers True, False or None (undecided), and True only when it is certain. Two conventions of the
datasets count as certain: a unit may be left out (``36`` for ``\$36``, but ``5 cm`` is not ``5 m``), and
a percent sign after a number above 1 (``50`` for ``50\%``).
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from expert_iteration.grading.units import PERCENT, unit_name

_CHARACTERS = str.maketrans(
    {
        "\N{MINUS SIGN}": "-",
        "\N{NO-BREAK SPACE}": " ",
        "\N{GREEK SMALL LETTER PI}": r"\pi ",
        "\N{INFINITY}": r"\infty ",
        "\N{DEGREE SIGN}": r"^\circ",
        "\N{SUPERSCRIPT TWO}": "^2",
        "\N{SUPERSCRIPT THREE}": "^3",
        "\N{VULGAR FRACTION ONE HALF}": r"\frac{1}{2}",
        "\N{VULGAR FRACTION ONE QUARTER}": r"\frac{1}{4}",
        "\N{VULGAR FRACTION THREE QUARTERS}": r"\frac{3}{4}",
        **{chr(0xFF01 + offset): chr(0x21 + offset) for offset in range(94)},
    }
)
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\s+", " "),
        (r"(?<!\\)\\!\s*", ""),
        (r"(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\(?:left|right|displaystyle)(?![A-Za-z])", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*(\d)(?=\s*[\d{])", r"\\frac{\1}"),
        (r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}"),
        (r"\{,\}", ","),
        (r"\\math(?:rm|bf|it)\s*\{\s*([A-Za-z])\s*\}", r"\1"),
        (r"\\(?:mbox|textbf|textit|textrm|textnormal|mathrm|mathbf)\s*\{", r"\\text{"),
        (r"\\text\s*\{\s*([^{}]*?)\s*\}", r"\\text{\1}"),
        (r"([_^])\s*\{\s*(\w|\\circ)\s*\}", r"\1\2"),
        (r" +", " "),
        # A space stays between letters or digits, and in "1, 234", which is a list and no thousand.
        (r" (?![0-9A-Za-z])|(?<![0-9A-Za-z,]) |(?<=,) (?!\d{3}(?!\d))", ""),
    )
]
_MATH_MODE = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_PLAIN_NUMBER = re.compile(r"-?\d+", re.ASCII)
_DECIMAL = re.compile(r"[-+]?(?:(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)", re.ASCII)
_FRACTION = re.compile(r"([-+]?)\\frac\{([-+]?\d+)\}\{([-+]?\d+)\}|([-+]?\d+)/(\d+)", re.ASCII)
_MIXED = re.compile(r"([-+]?)(\d+)(?:\\frac\{(\d+)\}\{(\d+)\}| (\d+)/(\d+))", re.ASCII)
_LITERAL = re.compile(r"[-+]?\d[\dA-Z.]*_(?:\w|\{\w+\})|\d+(?::\d+)+", re.ASCII)
"""A number in a base, a clock time or a ratio: equal only when written alike."""
_WORDS = re.compile(r"\\text\{[^{}]+\}|[A-Za-z]{4,}(?: [A-Za-z]+)*")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_IN_PARENTHESES = re.compile(r"\(([^(),]*)\)")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A normal text without its unit: ``\\$36`` is the body ``36`` in dollars."""

    body: str
    unit: str
    """Canonical name, as in units.py; empty when there is none."""


def normal(text: str) -> str:
    """One spelling for texts that differ in typesetting only."""
    if _PLAIN_NUMBER.fullmatch(text):
        return text
    text = _without_math_mode(text.translate(_CHARACTERS).strip())
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text.strip().rstrip(".").rstrip()


def number(body: str) -> Fraction | None:
    """The exact value of an integer, decimal, fraction or mixed number in normal spelling, else None."""
    if _DECIMAL.fullmatch(body):
        return Fraction(body.replace(",", ""))
    if match := _FRACTION.fullmatch(body):
        sign, top, bottom = match[1], match[2] or match[4], match[3] or match[5]
        return _ratio(sign or "", int(top), int(bottom))
    if match := _MIXED.fullmatch(body):
        whole, top, bottom = int(match[2]), int(match[3] or match[5]), int(match[4] or match[6])
        # An improper fraction after a whole number reads as a product too: not certain.
        return _ratio(match[1], whole * bottom + top, bottom) if top < bottom else None
    return None


def quantity(text: str) -> Quantity:
    """Split a normal text in body and unit; money signs, percent and degrees are units."""
    body, unit = unit_name(text)
    return Quantity(body, unit)


def same(answer: str, gold: str) -> bool | None:
    """Whether two non-empty normal texts mean the same, or None when that takes algebra to decide."""
    if answer == gold or _plain(answer) == _plain(gold):
        return True
    if _LITERAL.fullmatch(answer) or _LITERAL.fullmatch(gold):
        return False
    if _WORDS.fullmatch(gold):
        return _plain(answer).casefold() == _plain(gold).casefold()
    return _same_quantity(quantity(answer), quantity(gold))


def _same_quantity(answer: Quantity, gold: Quantity) -> bool | None:
    if answer.unit and gold.unit and answer.unit != gold.unit:
        return False
    if answer.unit != gold.unit and PERCENT in (answer.unit, gold.unit):
        percent, bare = (answer, gold) if answer.unit == PERCENT else (gold, answer)
        return _percent_equals(percent.body, bare.body)
    if answer.body == gold.body:
        return True
    left, right = number(answer.body), number(gold.body)
    return None if left is None or right is None else left == right


def _percent_equals(percent: str, bare: str) -> bool:
    left, right = number(percent), number(bare)
    if left is None or right is None:
        return False
    return left / 100 == right or (left == right and right > 1)


def _ratio(sign: str, top: int, bottom: int) -> Fraction | None:
    if bottom == 0:
        return None
    return Fraction(-top if sign == "-" else top, bottom)


def _plain(text: str) -> str:
    """Text without its text commands, nor parentheses around a single thing."""
    text = _TEXT.sub(r"\1", text).strip()
    inner = _IN_PARENTHESES.fullmatch(text)
    return inner[1] if inner else text


def _without_math_mode(text: str) -> str:
    for opening, closing in _MATH_MODE:
        if len(text) >= len(opening + closing) and text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : -len(closing)]
            if not inner.endswith("\\"):
                return inner
    return text
