"""How one answer is judged, step by step, in plain words."""

from collections.abc import Iterator

from expert_iteration.grading.exact import normal, quantity, same
from expert_iteration.grading.extraction import Extraction, found
from expert_iteration.grading.grader import Grader, Response
from expert_iteration.grading.leaf import decide
from expert_iteration.grading.pool import Pool
from expert_iteration.grading.refusal import refusal
from expert_iteration.grading.rows import Row
from expert_iteration.grading.structure import leaves
from expert_iteration.grading.styles import INSTRUCTION_STYLE, LENIENT_STYLE, extract, extract_gold
from expert_iteration.types import Verdict

TAIL = 400
"""Characters of a text that are shown, counted from its end."""

_FOUND = {True: "equal", False: "different", None: "undecided, that takes algebra"}

Step = tuple[str, str]
"""What was done, and what came of it."""


def explain(grader: Grader, search: Pool, row: Row) -> str:
    """Lines of a step and what it found, ending with the verdict of `grader`.

    Args:
        search: runs the program of the grading workers; it looks for an answer where the style cannot tell.
    """
    steps: list[Step] = [("id", str(row.id))]
    if isinstance(row.question, Verdict):
        steps += _judged(row.question)
    else:
        steps += _stated(row.question)
        if row.question.style != INSTRUCTION_STYLE:
            steps += _answered(row.question, search)
        steps += _judged(grader.grade([row.question])[0])
    return "".join(f"{name:12} {_printable(result)}\n" for name, result in steps)


def _stated(question: Response) -> Iterator[Step]:
    yield "style", question.style
    yield "response", _tail(question.text)
    yield "gold", _tail(question.gold)


def _answered(question: Response, search: Pool) -> Iterator[Step]:
    answer = extract(question.style, question.text)
    yield "format", f"{answer.format_reward:g}"
    if answer.prose:
        yield "extraction", f"{answer.reason}: math-verify searches the text"
        answer = _searched(answer, search)
    yield "extraction", _what(answer)
    gold = _searched(extract_gold(question.style, question.gold), search)
    if gold.answer not in (None, question.gold):
        yield "gold", _what(gold)
    if answer.answer is not None:
        forms = normal(answer.answer), normal(gold.answer or question.gold)
        yield "normal form", _pair(*forms)
        if all(forms):
            yield from _compared(*forms, any_order=question.style == LENIENT_STYLE)


def _compared(answer: str, gold: str, *, any_order: bool) -> Iterator[Step]:
    whole = same(answer, gold)
    yield "exact", _FOUND[whole]
    if whole is not None:
        return
    pairs = leaves(answer, gold, any_order=any_order)
    if pairs is None:
        yield "structure", "different: other brackets, number of parts, or relation"
        return
    yield "structure", f"alike; left to compare: {len(pairs)}"
    settled = [decide(*pair) for pair in pairs]
    for pair, equal in zip(pairs, settled, strict=True):
        yield "part", f"{_pair(*pair)}: {_FOUND[equal]}"
        if equal is None and False not in settled:
            yield from _asked(*(quantity(text).body for text in pair))


def _asked(answer: str, gold: str) -> Iterator[Step]:
    """Whether math-verify is asked, and if not, why."""
    texts = {"gold": gold, "answer": answer}
    reasons = [f"{name} ({reason})" for name, text in texts.items() if (reason := refusal(text))]
    yield "refusal", ", ".join(reasons) or "none"
    yield "math-verify", "not asked" if reasons else f"asked about {_pair(answer, gold)}"


def _judged(verdict: Verdict) -> Iterator[Step]:
    yield "verdict", f"{verdict.outcome.value} ({verdict.reason})"
    if verdict.abstains:
        yield "reward", "none: the grader abstains"
    else:
        yield "reward", f"answer {verdict.answer_reward:g}, format {verdict.format_reward:g}"


def _searched(extraction: Extraction, search: Pool) -> Extraction:
    if not extraction.prose:
        return extraction
    [reply] = search.map([("find", extraction.prose)])
    return found(reply) if isinstance(reply, str) and reply else extraction


def _what(extraction: Extraction) -> str:
    return f"none ({extraction.reason})" if extraction.answer is None else extraction.answer


def _pair(answer: str, gold: str) -> str:
    return f"{answer}  |  {gold}"


def _tail(text: str) -> str:
    return text if len(text) <= TAIL else f"...{text[-TAIL:]}"


def _printable(text: str) -> str:
    """On one line, and without what a terminal would obey."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )
