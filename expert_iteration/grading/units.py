r"""The units that an answer may carry or leave out.

What is measured counts (``5 cm`` is not ``5 m``); a description need not be the same word for word
(``5 cookies``, ``5 big cookies``).
Words that change a value (thousand, half) or join two values (and, or) are no unit.
"""

import re

PERCENT = "percent"
DOLLAR = "dollar"
DEGREE = "degree"
ANY = "unit"
"""The unit that stands for whichever one is meant, as in ``12 square units``."""

_NAMES = (
    (DOLLAR, "dollars", "usd", "buck", "bucks"),
    ("cent", "cents"),
    ("euro", "euros"),
    ("yen",),
    (PERCENT, "percentage", "pct"),
    (DEGREE, "degrees", "deg"),
    ("radian", "radians", "rad"),
    ("nm", "nanometer", "nanometers"),
    ("mm", "millimeter", "millimeters"),
    ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    ("m", "meter", "meters", "metre", "metres"),
    ("km", "kilometer", "kilometers", "kilometre", "kilometres"),
    ("inch", "inches", "in"),
    ("foot", "feet", "ft"),
    ("yard", "yards", "yd", "yds"),
    ("mile", "miles", "mi"),
    ("mph",),
    ("kph", "kmph"),
    ("mg", "milligram", "milligrams"),
    ("gram", "grams", "g", "gm"),
    ("kg", "kilogram", "kilograms", "kgs"),
    ("pound", "pounds", "lb", "lbs"),
    ("ounce", "ounces", "oz"),
    ("ton", "tons", "tonne", "tonnes"),
    ("ml", "milliliter", "milliliters"),
    ("liter", "liters", "l", "litre", "litres"),
    ("cup", "cups"),
    ("pint", "pints"),
    ("quart", "quarts"),
    ("gallon", "gallons", "gal"),
    ("acre", "acres"),
    ("hectare", "hectares"),
    ("second", "seconds", "sec", "secs", "s"),
    ("minute", "minutes", "min", "mins"),
    ("hour", "hours", "hr", "hrs", "h"),
    ("day", "days"),
    ("week", "weeks"),
    ("month", "months"),
    ("year", "years", "yr", "yrs"),
    ("am",),
    ("pm",),
    (ANY, "units"),
)
_CANONICAL = {name: names[0] for names in _NAMES for name in names}
_DESCRIBED = "~"
"""Begins the unit of a quantity that is described, but not measured."""
_POWERS = {"square": "^2", "sq": "^2", "squared": "^2", "cubic": "^3", "cu": "^3", "cubed": "^3"}
_NO_UNIT = re.compile(
    r"\b(?:hundred|thousand|[mbtr]+illion|dozen|score|half|halves|thirds?|fourth|quarters?|fifth|tenths?|hundredths"
    r"|and|or|to|not?|nor|plus|minus|times|over|mod|base|factorial|point|roots?|than|if|is|are|but|through|between"
    r"|except|[eixyzn])\b"
)
_MONEY = re.compile(r"([-+]?)(?:\\?\$|\\text\{\\?\$\})(?=.)")
_SIGN = re.compile(r"\\?%$|(?:\^|\^\{)?\\circ\}?$|(?<=[\d}])\\?\$$|\^\{?(?:\\text\{)?(?:st|nd|rd|th)\}{0,2}$")
_TEXT_UNIT = re.compile(r"\\text\{([A-Za-z][A-Za-z ./'()-]*)\}(\^[23])?$")
_WORD_UNIT = re.compile(
    r"(?:(?<=[\d})])|(?<=\\pi)|(?<=illion)|(?<=thousand))(?! ?(?:hundred|thousand|[a-z]{1,3}illion)\b)"
    r" ?([A-Za-z][A-Za-z.]*(?: [A-Za-z.]+){0,5})(\^[23])?$",
    re.ASCII,
)
_WORD = re.compile(r"[a-z]+|/")
_LONG_WORD = re.compile(r"[A-Za-z]{4}")


def unit_name(text: str) -> tuple[str, str]:
    """Body and unit of a normal text; the text whole, and an empty unit, when it carries none."""
    if match := _MONEY.match(text):
        return match[1] + unit_name(text[match.end() :])[0], DOLLAR
    if match := _SIGN.search(text):
        sign = match[0]
        unit = PERCENT if "%" in sign else DOLLAR if "$" in sign else DEGREE if "circ" in sign else ""
        return text[: match.start()].rstrip(), unit
    match = _TEXT_UNIT.search(text) or _WORD_UNIT.search(text)
    if match is None or match.start() == 0:
        return text, ""
    certain = match[0][0] == "\\" or (match[0][0] == " " and bool(_LONG_WORD.search(match[1])))
    name = _canonical(match[1].casefold().replace(".", ""), match[2] or "", certain=certain)
    return (text, "") if name is None else (text[: match.start()].rstrip(), name)


def agree(unit: str, other: str) -> bool:
    """Whether two units may stand for one another; no unit goes with every other one."""
    (top, _, below), (other_top, _, other_below) = unit.partition("/"), other.partition("/")
    if below and other_below and below != other_below:
        return False
    (name, _, power), (other_name, _, other_power) = top.partition("^"), other_top.partition("^")
    if not name or not other_name:
        return True
    if name[0] == other_name[0] == _DESCRIBED:
        return not set(name[1:].split()).isdisjoint(other_name[1:].split())
    return power == other_power and (name == other_name or ANY in (name, other_name))


def _canonical(phrase: str, power: str, *, certain: bool) -> str | None:
    """Name of the measure in a phrase, or its words when it names none; None for what may be no unit."""
    words = _WORD.findall(phrase)
    if not words or _NO_UNIT.search(phrase):
        return None
    known = [_CANONICAL[word] for word in words if word in _CANONICAL]
    if not certain and (not known or len(phrase) == 1):
        return None
    if not known:
        return _DESCRIBED + " ".join(word.removesuffix("s") for word in words)
    power = next((_POWERS[word] for word in words if word in _POWERS), power)
    ratio = len(known) > 1 and ("per" in words or "/" in words)
    return known[0] + power + (f"/{known[1]}" if ratio else "")
