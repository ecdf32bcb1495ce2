"""What was found in a response."""

from typing import NamedTuple

RESPONSE_CAP = 64_000
"""Characters of a response that are looked at, counted from its end, where answers are."""
ANSWER_CAP = 400
"""Longest answer that is judged, in characters."""


class Extraction(NamedTuple):
    """What a style found in a response."""

    answer: str | None
    """None when there is nothing to judge yet; `reason` then says why."""
    format_reward: float
    """1 when the response has the format of the style, whatever its answer says."""
    reason: str
    prose: str = ""
    """Text in which math-verify is to look for the answer; empty when that is not asked for."""


def found(content: str) -> Extraction:
    """The answer that stands where the style wants it."""
    answer = content.strip()
    if not answer:
        return Extraction(None, 1.0, "empty answer")
    if len(answer) > ANSWER_CAP:
        return Extraction(None, 1.0, f"answer longer than {ANSWER_CAP} characters")
    return Extraction(answer, 1.0, "")


def missing(reason: str) -> Extraction:
    """No answer where the style wants it."""
    return Extraction(None, 0.0, reason)
