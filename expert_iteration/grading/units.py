r"""The units that an answer may carry or leave out. Words that change a value (thousand, dozen) are none."""

import re

PERCENT = "percent"
DOLLAR = "dollar"
DEGREE = "degree"

_NAMES = (
    (DOLLAR, "dollars"),
    ("cent", "cents"),
    (PERCENT,),
    (DEGREE, "degrees"),
    ("radian", "radians"),
    ("mm", "millimeter", "millimeters"),
    ("cm", "centimeter", "centimeters"),
    ("m", "meter", "meters"),
    ("km", "kilometer", "kilometers"),
    ("inch", "inches", "in"),
    ("foot", "feet", "ft"),
    ("yard", "yards"),
    ("mile", "miles"),
    ("mph", "miles per hour"),
    ("gram", "grams", "g"),
    ("kg", "kilogram", "kilograms"),
    ("pound", "pounds"),
    ("liter", "liters"),
    ("second", "seconds"),
    ("minute", "minutes"),
    ("hour", "hours"),
    ("day", "days"),
    ("week", "weeks"),
    ("month", "months"),
    ("year", "years"),
    ("unit", "units"),
    ("people",),
)
_CANONICAL = {name: names[0] for names in _NAMES for name in names}
_POWERS = {"square": "^2", "sq": "^2", "cubic": "^3"}

_MONEY = re.compile(r"([-+]?)\\?\$")
_SIGN = re.compile(r"\\?%$|\^?\\circ$")
_TEXT_UNIT = re.compile(r"\\text\{([^{}]+)\}(\^[23])?$")
_WORD_UNIT = re.compile(r"(?<=[\d}]) ?([A-Za-z]{3,}(?: [a-z]+){0,2})(\^[23])?$", re.ASCII)


def unit_name(text: str) -> tuple[str, str]:
    """Body and canonical unit of a normal text; the unit is empty, and the text whole, without one."""
    if match := _MONEY.match(text):
        return match[1] + text[match.end() :], DOLLAR
    if match := _SIGN.search(text):
        return text[: match.start()], PERCENT if match[0].endswith("%") else DEGREE
    match = _TEXT_UNIT.search(text) or _WORD_UNIT.search(text)
    name = match and _canonical(match[1].casefold(), match[2] or "")
    if match and name and match.start() > 0:
        return text[: match.start()].rstrip(), name
    return text, ""


def _canonical(words: str, power: str) -> str:
    first, _, rest = words.partition(" ")
    if first in _POWERS and not power:
        words, power = rest, _POWERS[first]
    name = _CANONICAL.get(words, "")
    return name and name + power
