r"""One spelling for texts that differ in typesetting only, as ``\dfrac12`` and ``\frac{1}{2}`` do."""

import re

_CHARACTERS = str.maketrans(
    {
        "\N{MINUS SIGN}": "-",
        "\N{EN DASH}": "-",
        "\N{NO-BREAK SPACE}": " ",
        "\N{GREEK SMALL LETTER PI}": r"\pi ",
        "\N{GREEK SMALL LETTER THETA}": r"\theta ",
        "\N{SQUARE ROOT}": r"\sqrt ",
        "\N{INFINITY}": r"\infty ",
        "\N{DEGREE SIGN}": r"^\circ",
        "\N{MULTIPLICATION SIGN}": r"\times ",
        "\N{MIDDLE DOT}": r"\cdot ",
        "\N{DOT OPERATOR}": r"\cdot ",
        "\N{DIVISION SIGN}": "/",
        "\N{PLUS-MINUS SIGN}": r"\pm ",
        "\N{UNION}": r"\cup ",
        "\N{ELEMENT OF}": r"\in ",
        "\N{LESS-THAN OR EQUAL TO}": r"\le ",
        "\N{GREATER-THAN OR EQUAL TO}": r"\ge ",
        "\N{NOT EQUAL TO}": r"\ne ",
        "\N{ALMOST EQUAL TO}": r"\approx ",
        "\N{SUPERSCRIPT TWO}": "^2",
        "\N{SUPERSCRIPT THREE}": "^3",
        "\N{SUPERSCRIPT FOUR}": "^4",
        "\N{VULGAR FRACTION ONE HALF}": r"\frac{1}{2}",
        "\N{VULGAR FRACTION ONE QUARTER}": r"\frac{1}{4}",
        "\N{VULGAR FRACTION THREE QUARTERS}": r"\frac{3}{4}",
        **{chr(0xFF01 + offset): chr(0x21 + offset) for offset in range(94)},
    }
)
Rewrites = list[tuple[re.Pattern[str], str]]


def _compiled(*pairs: tuple[str, str]) -> Rewrites:
    return [(re.compile(pattern), replacement) for pattern, replacement in pairs]


_COMMANDS = _compiled(
    (r"^(?:\\approx(?![A-Za-z])|\\text\s*\{[^{}]*(?: is|:)\s*\})", ""),
    # Spaces, and what only says how large or where something is drawn. "\\" before a space ends a matrix row.
    (r"(,?)\s*(?<!\\)\\!\s*", r"\1"),
    (r"(?<=\d)\\,(?=\d{3}(?!\d))", ","),
    (r"(?<!\\)\\(?:[,;:> ]|q?quad(?![A-Za-z])|[hv]space\*?\{[^{}]*\})", " "),
    (r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\.?", ""),
    (r"\\(?:displaystyle|textstyle|limits|mathstrut)(?![A-Za-z])", ""),
    (r"\\(?:text)?color\s*\{[^{}]*\}", ""),
    # Several names for one thing.
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
    (r"\\le(?:q|qslant)?(?![A-Za-z])|\\leqq(?![A-Za-z])", r"\\le"),
    (r"\\ge(?:q|qslant)?(?![A-Za-z])|\\geqq(?![A-Za-z])", r"\\ge"),
    (r"\\(?:neq|not=)(?![A-Za-z])", r"\\ne"),
    (r"\\lt(?![A-Za-z])", "<"),
    (r"\\gt(?![A-Za-z])", ">"),
    (r"\\[lr]?vert(?![A-Za-z])|\\mid(?![A-Za-z])", "|"),
    (r"\\lbrace(?![A-Za-z])", r"\\{"),
    (r"\\rbrace(?![A-Za-z])", r"\\}"),
    (r"\\colon(?![A-Za-z])", ":"),
    (r"\\bigcup(?![A-Za-z])", r"\\cup"),
    (r"\\(?:lor|vee)(?![A-Za-z])", r"\\text{or}"),
    (r"\\degree(?![A-Za-z])", r"^\\circ"),
    (r"\\mathbb\s*\{?\s*([A-Z])\s*\}?", r"\\mathbb{\1}"),
    (r"\\operatorname\s*\{\s*([A-Za-z]+)\s*\}", r"\\\1"),
    # Fonts.
    (r"\\(?:math(?:rm|bf|it|sf|normal)|boldsymbol|bm)\s*\{\s*([A-Za-z]|\d+)\s*\}", r"\1"),
    (r"\\(?:mbox|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|boldsymbol|bm)\s*\{", r"\\text{"),
    (r"\\text\s*\{\s*([^{}]*?)\s*\}", r"\\text{\1}"),
    # Arguments without braces.
    (r"\\frac\s*(\d)(?=\s*[\d{])", r"\\frac{\1}"),
    (r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}"),
    (r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}", r"\\frac{\1}{\2}"),
    (r"^([^{}]*)\\over(?![A-Za-z])([^{}]*)$", r"\\frac{\1}{\2}"),
    (r"\\sqrt\s*(\d(?!\d)|[A-Za-z])", r"\\sqrt{\1}"),
    # Matrices: brackets and the spacing of rows say nothing, the bars of a determinant do.
    (r"\\\\\s*\[[^\[\]]*\]", r"\\\\"),
    (r"\\begin\s*\{(?:[pbB]|small)?matrix\}|\\begin\s*\{array\}\s*\{[^{}]*\}", r"\\begin{matrix}"),
    (r"\s*(?:\\\\\s*)?\\end\s*\{(?:(?:[pbB]|small)?matrix|array)\}", r"\\end{matrix}"),
    (r"[(\[]\s*(\\begin\{matrix\}(?:(?!\\begin).)*?\\end\{matrix\})\s*[)\]]", r"\1"),
)
_CHARACTER_REWRITES = _compiled(
    ("~", " "),
    (r"\{,\}", ","),
    (r"<=", r"\\le "),
    (r">=", r"\\ge "),
    (r"!=", r"\\ne "),
    (r"([_^])\s*\{\s*(\w|\\circ)\s*\}", r"\1\2"),
    (r"_\s*\{?\s*\\text\{(\w+)\}\s*\}?", r"_{\1}"),
    (r"_\{(\w)\}", r"_\1"),
    (r"(?:^|(?<=[(\[,=]))\s*\+\s*(?=[\d\\])", ""),
    (r"\((\d+)\)_", r"\1_"),
    (r"(?<=[)\]}])\s*U\s*(?=[(\[{\\])", r"\\cup"),
    (r" +", " "),
    # A space stays between letters or digits, and in "1, 234", which is a list and no thousand.
    (r" (?![0-9A-Za-z])|(?<![0-9A-Za-z,]) |(?<=,) (?!\d{3}(?!\d))", ""),
)
_MATH_MODE = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"))
_WRAPPER = re.compile(r"(?:\\(?:boxed|fbox|mathbf|boldsymbol|bm|mathrm|ensuremath)\s*)?\{")
_WRAPPED_TEXT = re.compile(r"\\text\s*\{\s*((?:[-+.$\\]|\d|[A-Z]\s*,)[^{}]*)\}")
_DOLLAR = re.compile(r"(?<!\\)\$")
_PLAIN_NUMBER = re.compile(r"-?\d+", re.ASCII)


def normal(text: str) -> str:
    """One spelling for texts that mean the same by looks."""
    if _PLAIN_NUMBER.fullmatch(text):
        return text
    if not text.isascii():
        text = text.translate(_CHARACTERS)
    text = _unwrapped(" ".join(text.split()))
    rewrites = _COMMANDS + _CHARACTER_REWRITES if "\\" in text else _CHARACTER_REWRITES
    for pattern, replacement in rewrites:
        text = pattern.sub(replacement, text)
    return _unwrapped(text.strip().lstrip("=").rstrip(".,;:").strip())


def _unwrapped(text: str) -> str:
    """Text without what stands around all of it: math mode, a box, a font, braces."""
    while (inner := _inner(text)) is not None:
        text = inner.strip()
    if "$" in text and len(_DOLLAR.findall(text)) % 2 == 0:
        text = _DOLLAR.sub("", text)
    return text


def _inner(text: str) -> str | None:
    for opening, closing in _MATH_MODE:
        if len(text) >= len(opening + closing) and text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : -len(closing)]
            if not inner.endswith("\\") and opening not in inner:
                return inner
    if match := _WRAPPED_TEXT.fullmatch(text):
        return match[1]
    match = _WRAPPER.match(text)
    if match and text.endswith("}") and _closes_at_end(text, match.end()):
        return text[match.end() : -1]
    return None


def _closes_at_end(text: str, start: int) -> bool:
    """Whether the brace opened before `start` is closed by the last character."""
    depth = 1
    for index in range(start, len(text)):
        if text[index] in "{}" and text[index - 1] != "\\":
            depth += 1 if text[index] == "{" else -1
        if depth == 0:
            return index == len(text) - 1
    return False
