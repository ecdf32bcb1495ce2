"""Where a response keeps its answer: one function per answer style, each linear in the response.

A style never falls back on another one: a response that does not follow the asked format has no answer.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

RESPONSE_CAP = 64_000
"""Characters of a response that are looked at, counted from its end, where answers are."""
ANSWER_CAP = 400
"""Longest answer that is judged, in characters."""

_BRACES = re.compile(r"(?P<box>\\f?boxed\s*\{)|(?P<open>\{)|(?P<close>\})|\\.", re.DOTALL)
_R1_ZERO = re.compile(r"</think> <answer>(.*)</answer>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Extraction:
    """What a style found in a response."""

    answer: str | None
    """None when there is nothing to judge; `reason` then says why."""
    format_reward: float
    """1 when the response has the format of the style, whatever its answer says."""
    reason: str


def last_boxed(text: str) -> str | None:
    r"""Content of the balanced ``\boxed{...}`` (or ``\fbox``) that starts last; None without one.

    The innermost box of a nest wins. Escaped braces do not count, spaces before the brace do not matter.
    """
    starts: list[int | None] = []
    found: tuple[int, int] | None = None
    for token in _BRACES.finditer(text):
        if token["box"]:
            starts.append(token.end())
        elif token["open"]:
            starts.append(None)
        elif token["close"] and starts:
            start = starts.pop()
            if start is not None and (found is None or start > found[0]):
                found = (start, token.start())
    return None if found is None else text[found[0] : found[1]]


def extract(style: str, response: str) -> Extraction:
    """Find the answer of a response, in time linear in `RESPONSE_CAP`.

    Raises:
        KeyError: the style is not one of `STYLES`.
    """
    return STYLES[style](response[-RESPONSE_CAP:])


def _r1_zero(response: str) -> Extraction:
    """`` </think> <answer> ... </answer>``, each tag once and nothing after; the prompt opened <think>.

    From CS336 assignment 5 (its r1_zero prompt). The last box inside the answer is unwrapped.
    """
    tags_once = all(response.count(tag) == 1 for tag in ("</think>", "<answer>", "</answer>"))
    start = response.find("</think>")
    match = _R1_ZERO.fullmatch(response, start) if tags_once else None
    return _missing("not </think> <answer>...</answer>") if match is None else _found(_unwrapped(match[1]))


def _boxed(response: str) -> Extraction:
    content = last_boxed(response)
    return _missing("no \\boxed{}") if content is None else _found(content)


def _gsm8k(response: str) -> Extraction:
    """The rest of the line after the last ``####``, as in the solutions of GSM8K."""
    _, mark, rest = response.rpartition("####")
    return _found(rest.strip(" \t").partition("\n")[0]) if mark else _missing("no ####")


def _answer_tag(response: str) -> Extraction:
    before, closing, _ = response.rpartition("</answer>")
    _, opening, content = before.rpartition("<answer>")
    return _found(_unwrapped(content)) if closing and opening else _missing("no <answer>...</answer>")


def _unwrapped(content: str) -> str:
    boxed = last_boxed(content)
    return content if boxed is None else boxed


def _found(content: str) -> Extraction:
    answer = content.strip()
    if not answer:
        return Extraction(None, 1.0, "empty answer")
    if len(answer) > ANSWER_CAP:
        return Extraction(None, 1.0, f"answer longer than {ANSWER_CAP} characters")
    return Extraction(answer, 1.0, "")


def _missing(reason: str) -> Extraction:
    return Extraction(None, 0.0, reason)


STYLES: dict[str, Callable[[str], Extraction]] = {
    "r1_zero": _r1_zero,
    "boxed": _boxed,
    "gsm8k": _gsm8k,
    "answer_tag": _answer_tag,
}
"""Name of a style -> the function that finds the answer in the end of a response."""
