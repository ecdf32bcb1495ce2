"""When two questions are the same, and which part of a set a question belongs to."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Mapping
from hashlib import sha256
from itertools import accumulate

_QUOTES = dict.fromkeys(map(ord, "\"'`\u2018\u2019\u201c\u201d"))
_MARK_AFTER_A_WORD = re.compile(r"(?:[.,;:?]|(?<![\d)])!)(?=[\s$)\]}.,;:?!]|$)")
"""Punctuation of prose. Marks inside numbers and formulas stay: 1.5, (2,3) and 5! are not 15, (23) and 5."""
_IDLE_SPACE = re.compile(r" (?!\w)|(?<!\w) ")


def normalised(question: str) -> str:
    """Equal for questions that differ in case, white space and the punctuation of prose only.

    Operators, brackets and other signs stay: ``3 - 2`` and ``3 + 2`` are two questions.
    """
    text = unicodedata.normalize("NFC", question).casefold().translate(_QUOTES)
    text = _MARK_AFTER_A_WORD.sub("", " ".join(text.split()))
    return _IDLE_SPACE.sub("", text)


def part_of(question: str, shares: Mapping[str, float], seed: int = 0) -> str:
    """The part that owns a question, known from its normalised text alone.

    More rows, or rows in another order, move no question from one part to another.

    Args:
        shares: size of each part, relative to the others.
    """
    digest = sha256(f"{seed}/{normalised(question)}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64 * sum(shares.values())
    names, ends = list(shares), list(accumulate(shares.values()))
    return names[min(bisect_right(ends, point), len(names) - 1)]
