r"""``\boxed{...}`` (and ``\fbox``) in a response, found in time linear in it."""

import re
from typing import NamedTuple

_TOKENS = re.compile(
    r"(?P<box>\\(?:boxed|fbox)\s*\{)"
    r"|(?P<bare>\\boxed\s*(?P<short>-?\d[\d.,/]*(?<![.,])|(?<=\s)[A-Za-z](?![A-Za-z])))"
    r"|(?P<open>\{)|(?P<close>\})|\\.",
    re.DOTALL,
)
_AND = r"(?:\\text\s*\{[^{}]*\b(?:and|or)[,\s]*\}|\b(?:[a-z]+\s+)?(?:and|or)\b|[,;])"
_FILLER = r"(?:\\[()\[\]\\,;: !]|\\q?quad|[$\s]|\b[A-Za-z](?:_\w|_\{\w+\})?\s*=)"
_JOINT = re.compile(rf"{_FILLER}*{_AND}(?:{_AND}|{_FILLER})*")
MAX_GAP = 60
"""Characters between two boxes of one list."""


class Box(NamedTuple):
    """Where a box stands in its text, and what it holds."""

    start: int
    end: int
    content: str


def boxes(text: str) -> list[Box]:
    r"""The boxes that are closed, in the order in which they start; ``\boxed 5`` needs no braces.

    Escaped braces do not count, spaces before the brace do not matter.
    """
    opened: list[tuple[int, int] | None] = []
    found = []
    for token in _TOKENS.finditer(text):
        if token["box"]:
            opened.append((token.start(), token.end()))
        elif token["bare"]:
            found.append(Box(token.start(), token.end(), token["short"]))
        elif token["open"]:
            opened.append(None)
        elif token["close"] and opened and (box := opened.pop()) is not None:
            found.append(Box(box[0], token.end(), text[box[1] : token.start()]))
    return sorted(found)


def last_boxed(text: str) -> str | None:
    """Content of the closed box that starts last, the innermost one of a nest; None without one."""
    last = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))
    if last < 0:
        return None
    found = boxes(text[last:]) or boxes(text)
    return found[-1].content if found else None


def joined_boxes(text: str) -> str | None:
    r"""Contents of the last box and of those that an "and" or a comma joins to it, as a list.

    As in ``x = \boxed{1}, y = \boxed{2}``. A box that repeats another one adds nothing.
    """
    found = boxes(text)
    if not found:
        return None
    joined = [found.pop()]
    while found and found[-1].end <= joined[0].start and _joins(text[found[-1].end : joined[0].start]):
        joined.insert(0, found.pop())
    return ", ".join(dict.fromkeys(box.content.strip() for box in joined))


def _joins(gap: str) -> bool:
    return not gap or (len(gap) <= MAX_GAP and _JOINT.fullmatch(gap) is not None)
