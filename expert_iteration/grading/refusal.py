r"""What must not reach math-verify: forms that cost without bound, and forms that it misreads.

The verdict on these is settled by looking at the text, so it is the same on any machine. The pool still
bounds whatever passes.
"""

import re

MAX_DIGITS = 40
MAX_NESTING = 12
MAX_EXPONENT_DIGITS = 4

_FORMS = (
    ("digits", re.compile(rf"\d{{{MAX_DIGITS + 1}}}")),
    ("exponent", re.compile(rf"(?:\^|\\sqrt\[)[\s{{(+-]*\d{{{MAX_EXPONENT_DIGITS + 1}}}")),
    # A numeric power inside an exponent; x^5-x^4 is none, and e^{x^2} is harmless.
    ("tower of powers", re.compile(r"\^\{[^{}]*\d[)}]*\^|\^-?(?:\d+|[A-Za-z])\^")),
    ("factorial", re.compile("!(?!=)")),
    (
        "operator",
        re.compile(
            r"\\(?:sum|prod|i*int|oint|lim|limsup|liminf|Gamma|d?t?binom|choose|operatorname|p?b?mod|det|zeta)"
            r"(?![A-Za-z])"
        ),
    ),
    # What follows is cheap, but math-verify reads it as something else: 4 2 as 6, 40_9 as 40, 8:30 as 4/15.
    ("text", re.compile(r"\\text")),
    ("words", re.compile(r"(?<![A-Za-z\\])[A-Za-z]{4,}")),
    ("digits set apart", re.compile(r"\d \d")),
    ("number base", re.compile(r"\d_")),
    ("ratio", re.compile(r"[:;]")),
    ("money", re.compile(r"\$")),
)
_OPENING, _CLOSING = "{([", "})]"
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[A-Za-z]+\*?\}")


def refusal(text: str) -> str | None:
    """Why a normal text is not handed to math-verify, or None when it may be."""
    if nesting(text) > MAX_NESTING:
        return "nesting"
    bare = _ENVIRONMENT.sub("", text)
    return next((name for name, form in _FORMS if form.search(bare)), None)


def nesting(text: str) -> int:
    """Deepest level of brackets."""
    depth = deepest = 0
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        deepest = max(deepest, depth)
    return deepest
