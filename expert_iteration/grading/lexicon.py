"""The words of formulas: what a token is by itself, whatever stands around it."""

import re

END = ""
"""The token after the last one."""
TIMES = frozenset({r"\cdot", r"\times", "*"})
DIVIDED = frozenset({"/", r"\div"})
CLOSING = {"(": ")", "{": "}", "[": "]", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil", r"\{": r"\}"}
FUNCTION_LETTERS = frozenset("fghFGH")
"""``f(2)`` is a symbol of its own, and no product."""

_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|exp"
_FUNCTION = re.compile(_FUNCTIONS)
_WITH_ARGUMENTS = re.compile("frac|binom|sqrt|log")
_SYMBOL = re.compile(
    "alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|kappa|lambda|mu|nu|xi|rho|sigma|tau|(?:var)?phi"
    "|chi|psi|omega|Gamma|Delta|Theta|Lambda|Sigma|Phi|Psi|Omega|pi|infty|ell"
)
_TOKEN = re.compile(
    r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+"
    rf"|\\[A-Za-z]+|(?<![A-Za-z\\])(?:{_FUNCTIONS}|sqrt|log|pi)(?![A-Za-z])|\\.|[^ ]",
    re.ASCII | re.DOTALL,
)


def lexed(text: str) -> list[str]:
    """The tokens of a normal text, and `END`. A known name counts with and without its backslash."""
    return [*_TOKEN.findall(text), END]


def is_number(token: str) -> bool:
    return token != END and (token[0] in "0123456789" or (token[0] == "." and len(token) > 1))


def is_letter(token: str) -> bool:
    return len(token) == 1 and token.isalpha()


def is_symbol(token: str) -> bool:
    """Whether a token names a quantity by a command, as ``\\alpha`` does."""
    return len(token) > 1 and _SYMBOL.fullmatch(token.removeprefix("\\")) is not None


def is_function(token: str) -> bool:
    """Whether a token names a function of one number, which may do without brackets: ``\\sin x``."""
    return len(token) > 1 and _FUNCTION.fullmatch(token.removeprefix("\\")) is not None


def opens_factor(token: str) -> bool:
    """Whether a token begins a factor; a bar may, or may end one."""
    return (
        token in CLOSING
        or is_number(token)
        or is_letter(token)
        or is_symbol(token)
        or is_function(token)
        or (len(token) > 1 and _WITH_ARGUMENTS.fullmatch(token.removeprefix("\\")) is not None)
    )
