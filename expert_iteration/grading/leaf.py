"""One thing against one thing: what structure.py leaves of two answers, decided without math-verify."""

import re

from expert_iteration.grading.algebra import identical
from expert_iteration.grading.exact import LITERAL, number, quantity, same
from expert_iteration.grading.relations import equal, relates

_SCIENTIFIC = re.compile(r"(?:\\times|\\cdot|\*) ?10\^(?:\d|\{-?\d+\})$")
_ARITHMETIC = re.compile(r"[\d.,(){}\[\] ^+*/-]|\\(?:cdot|times|div|frac)(?![A-Za-z])")
_OPEN_OPERATION = re.compile(r"(?<=[\d)}\]])\s*(?:[-+*(]|\\cdot|\\times|\\div)")


def decide(answer: str, gold: str) -> bool | None:
    """Whether two normal texts without outer structure mean the same, or None when that is not certain."""
    settled = same(answer, gold)
    if settled is not None:
        return settled
    if relates(answer) or relates(gold):
        return equal(answer, gold)
    body, wanted = quantity(answer).body, quantity(gold).body
    if LITERAL.fullmatch(body) or LITERAL.fullmatch(wanted):
        return False
    if number(wanted) is not None and left_open(body):
        return False
    return identical(body, wanted)


def left_open(body: str) -> bool:
    r"""Whether a text is arithmetic that was not carried out, as ``2+2``.

    That is no answer to a question for a number, a policy shared with prm800k's grader: otherwise many a
    question would be a correct answer to itself. Fractions, powers and ``3 \times 10^8`` are numbers.
    """
    rest = _SCIENTIFIC.sub("", body)
    return bool(_OPEN_OPERATION.search(rest)) and not _ARITHMETIC.sub("", rest)
