"""Answer against gold: settled here, or reduced to the pairs of formulas that math-verify is asked about."""

from functools import cache

from expert_iteration.grading.exact import normal, quantity, same
from expert_iteration.grading.leaf import decide
from expert_iteration.grading.refusal import MAX_NESTING, nesting, refusal
from expert_iteration.grading.structure import leaves
from expert_iteration.types import Outcome, Verdict

GOLD_CAP = 400
"""Longest gold that is compared, in characters."""

Pair = tuple[str, str]
"""Answer and gold."""


@cache
def judged(outcome: Outcome, reason: str) -> Verdict:
    """The verdict on an answer that was found where its style wants it."""
    return Verdict(outcome, reason, format_reward=1.0)


def compare(answer: str, gold: str, *, any_order: bool = False) -> Verdict | list[Pair]:
    """The verdict on a pair if it can be settled exactly, else the pairs of formulas that decide it.

    `any_order`: whether a list without brackets may come in another order than in the gold.
    """
    if len(gold) > GOLD_CAP:
        return judged(Outcome.ERROR, f"gold: longer than {GOLD_CAP} characters")
    answer, gold = normal(answer), normal(gold)
    if not gold:
        return judged(Outcome.ERROR, "gold: empty")
    if not answer:
        return judged(Outcome.UNPARSABLE, "empty answer")
    whole = same(answer, gold)
    if whole is not None:
        return _exact(whole)
    for text, outcome in ((gold, Outcome.ERROR), (answer, Outcome.UNPARSABLE)):
        if nesting(text) > MAX_NESTING:
            return judged(outcome, "gold: nesting" if text is gold else "nesting")
    pairs = leaves(answer, gold, any_order=any_order)
    return judged(Outcome.WRONG, "structure") if pairs is None else _compare_leaves(pairs)


def combined(verdicts: list[Verdict]) -> Verdict:
    """One wrong leaf makes a wrong answer; otherwise a leaf that could not be judged decides."""
    order = (Outcome.WRONG, Outcome.ERROR, Outcome.TIMEOUT, Outcome.UNPARSABLE, Outcome.CORRECT)
    return min(verdicts, key=lambda verdict: order.index(verdict.outcome))


def _compare_leaves(pairs: list[Pair]) -> Verdict | list[Pair]:
    settled = [(pair, decide(*pair)) for pair in pairs]
    if any(equal is False for _, equal in settled):
        return _exact(False)
    formulas = [
        (quantity(left).body, quantity(right).body) for (left, right), equal in settled if equal is None
    ]
    refused = [verdict for formula in formulas if (verdict := _refused(*formula)) is not None]
    if refused:
        return combined(refused)
    return formulas or _exact(True)


def _refused(answer: str, gold: str) -> Verdict | None:
    if (reason := refusal(gold)) is not None:
        return judged(Outcome.ERROR, f"gold: {reason}")
    if (reason := refusal(answer)) is not None:
        return judged(Outcome.UNPARSABLE, reason)
    return None


def _exact(equal: bool) -> Verdict:
    return judged(Outcome.CORRECT if equal else Outcome.WRONG, "exact")
