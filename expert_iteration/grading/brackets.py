"""The tokens of a normal text, and how deep in brackets each one stands."""

import re
from collections.abc import Callable, Iterable

_TOKENS = re.compile(r"\\(?:begin|end)\{\w+\}|\\text\{[^{}]*\}|\\[A-Za-z]+|\\.|.", re.DOTALL)
OPENING = ("(", "[", "{", r"\{", r"\begin", r"\langle")
CLOSING = (")", "]", "}", r"\}", r"\end", r"\rangle")


def tokens_of(text: str) -> list[str]:
    return _TOKENS.findall(text)


def depths(tokens: Iterable[str]) -> list[int]:
    """Bracket depth after each token; an environment such as a matrix is a bracket."""
    depth, found = 0, []
    for token in tokens:
        name = token.partition("{")[0] if token[0] == "\\" and len(token) > 2 else token
        depth += (name in OPENING) - (name in CLOSING)
        found.append(depth)
    return found


def split(text: str, separates: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """Pieces of a text between the separators outside of all brackets, and these separators."""
    pieces, separators = [""], []
    tokens = tokens_of(text)
    for token, depth in zip(tokens, depths(tokens), strict=True):
        if depth == 0 and separates(token):
            pieces.append("")
            separators.append(token)
        else:
            pieces[-1] += token
    return [piece.strip() for piece in pieces], separators
