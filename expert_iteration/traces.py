"""When two answers count as the same trace."""

import re
from collections.abc import Sequence
from hashlib import blake2b

from expert_iteration.choices import Duplicates

_TERM = r"\(*-?\$?\d[\d,]*(?:\.\d+)?%?\)*"
_EQUATION = re.compile(rf"{_TERM}(?:\s*[-+*/x×÷^]\s*{_TERM})+\s*=\s*{_TERM}")
_NOISE = re.compile(r"[\s$,]")


RUN = 4
"""Tokens of a run, the unit in which repetition and difference are counted."""


def runs(token_ids: Sequence[int]) -> list[tuple[int, ...]]:
    """All stretches of `RUN` neighbouring tokens."""
    return [tuple(token_ids[i : i + RUN]) for i in range(len(token_ids) - RUN + 1)]


def normal_text(text: str) -> str:
    """Without white space and case."""
    return "".join(text.split()).casefold()


def equations(text: str) -> tuple[str, ...]:
    """The computations of an answer, in order: ``4 * 3 = 12`` (RFT compares them, arXiv 2308.01825)."""
    found = (_NOISE.sub("", match[0]) for match in _EQUATION.finditer(text))
    return tuple(one.replace("x", "*").replace("×", "*").replace("÷", "/") for one in found)


def fingerprint(text: str, by: Duplicates = Duplicates.text) -> int:
    """Hash that is equal for answers that count as the same; those without equations go by their text."""
    computed = equations(text) if by is Duplicates.equations else ()
    key = ";".join(computed) or normal_text(text)
    return int.from_bytes(blake2b(key.encode(), digest_size=7).digest(), "big")
