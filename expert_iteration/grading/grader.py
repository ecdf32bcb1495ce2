"""(response, gold) -> Verdict: find the answer, compare exactly, and only then ask math-verify."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

from expert_iteration.config import GradingConfig
from expert_iteration.grading.comparison import Pair, combined, compare, judged
from expert_iteration.grading.extraction import Extraction, found
from expert_iteration.grading.ifeval import InstructionGrader
from expert_iteration.grading.pool import Pool, Reply
from expert_iteration.grading.styles import INSTRUCTION_STYLE, LENIENT_STYLE, extract, extract_gold
from expert_iteration.types import Outcome, Verdict

GRADER_VERSION = "2"
"""Changes whenever a verdict may change; it is written beside every verdict."""
CACHE_SIZE = 100_000
"""Verdicts remembered; about 30 MB of short answers."""

VERIFIER = Path(__file__).with_name("verifier.py")

_MEANING = {
    "correct": judged(Outcome.CORRECT, "math-verify"),
    "wrong": judged(Outcome.WRONG, "math-verify"),
    "unparsable": judged(Outcome.UNPARSABLE, "math-verify cannot read it"),
    "gold": judged(Outcome.ERROR, "gold: math-verify cannot read it"),
}


Found: TypeAlias = Extraction | Verdict
"""What a style found, or why math-verify could not finish looking for it."""


class Response(NamedTuple):
    """What is judged: a text, the format its answer should have, and the right answer."""

    style: str
    """A row of `STYLES`."""
    text: str
    gold: str


class Question(NamedTuple):
    """What is compared: two bare texts."""

    answer: str
    gold: str
    any_order: bool
    """Whether a list without brackets may be in another order than in the gold."""


class Grader:
    """Judges responses. Use it as a context manager, or call `close`.

    Any text gets a verdict: `grade` raises for no response and no gold. It may be called from several
    threads at once.
    """

    def __init__(self, config: GradingConfig) -> None:
        """Nothing is started yet."""
        self._pool = Pool(VERIFIER, config.workers, config.deadline)
        self._instructions = InstructionGrader(config)
        self._known: OrderedDict[Question, Verdict] = OrderedDict()
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave no process behind."""
        self._pool.close()
        self._instructions.close()

    def grade(self, responses: Sequence[Response]) -> list[Verdict]:
        """Judge responses, in order; equal (answer, gold) pairs are compared once.

        Raises:
            KeyError: a style is not one of `STYLES`.
            WorkerStartError: math-verify or the scorer of IFEval is needed and cannot be started.
        """
        instructed = self._instructions.grade(
            [(text, gold) for style, text, gold in responses if style == INSTRUCTION_STYLE]
        )
        answered = self._grade_answers([one for one in responses if one.style != INSTRUCTION_STYLE])
        verdicts = {True: iter(instructed), False: iter(answered)}
        return [next(verdicts[one.style == INSTRUCTION_STYLE]) for one in responses]

    def _grade_answers(self, responses: Sequence[Response]) -> list[Verdict]:
        """Judge responses that hold an answer."""
        answers = self._searched([extract(style, text) for style, text, _ in responses])
        golds = self._searched([extract_gold(style, gold) for style, _, gold in responses])
        questions = [_question(*each) for each in zip(responses, answers, golds, strict=True)]
        verdicts = self._compare(list(dict.fromkeys(each for each in questions if each is not None)))
        return [
            _without_answer(answer) if question is None else verdicts[question]
            for question, answer in zip(questions, answers, strict=True)
        ]

    def _searched(self, extractions: list[Extraction]) -> list[Found]:
        """Have math-verify look for an answer where a style could not tell."""
        texts = list(dict.fromkeys(each.prose for each in extractions if each.prose))
        if not texts:
            return list(extractions)
        replies = dict(zip(texts, self._pool.map([("find", text) for text in texts]), strict=True))
        return [_after_search(each, replies[each.prose]) if each.prose else each for each in extractions]

    def _compare(self, questions: list[Question]) -> dict[Question, Verdict]:
        """Judge distinct questions, from memory where possible."""
        with self._lock:
            verdicts = {question: self._known[question] for question in questions if question in self._known}
        open_leaves: dict[Question, list[Pair]] = {}
        for question in questions:
            if question not in verdicts:
                settled = compare(question.answer, question.gold, any_order=question.any_order)
                if isinstance(settled, Verdict):
                    verdicts[question] = settled
                else:
                    open_leaves[question] = settled
        verdicts |= self._ask(open_leaves)
        self._remember(verdicts)
        return verdicts

    def _ask(self, open_leaves: dict[Question, list[Pair]]) -> dict[Question, Verdict]:
        """Judge by math-verify what no exact rule settles: an answer is correct if all its leaves are."""
        pairs = list(dict.fromkeys(pair for asked in open_leaves.values() for pair in asked))
        replies = self._pool.map([("judge", *pair) for pair in pairs])
        verdicts = {
            pair: _MEANING[reply] if isinstance(reply, str) else judged(reply.outcome, reply.reason)
            for pair, reply in zip(pairs, replies, strict=True)
        }
        return {
            question: combined([verdicts[pair] for pair in asked]) for question, asked in open_leaves.items()
        }

    def _remember(self, verdicts: dict[Question, Verdict]) -> None:
        """Keep what was settled; a timeout may have been the machine's fault and is tried again."""
        with self._lock:
            self._known.update(
                {question: verdict for question, verdict in verdicts.items() if not verdict.abstains}
            )
            while len(self._known) > CACHE_SIZE:
                self._known.popitem(last=False)


def _after_search(extraction: Extraction, reply: Reply) -> Found:
    if isinstance(reply, Verdict):
        return reply
    return found(reply) if reply else extraction


def _question(response: Response, answer: Found, gold: Found) -> Question | None:
    """What is compared; None without an answer."""
    if isinstance(answer, Verdict) or answer.answer is None:
        return None
    bare_gold = gold.answer if isinstance(gold, Extraction) else None
    return Question(answer.answer, bare_gold or response.gold, response.style == LENIENT_STYLE)


def _without_answer(found: Found) -> Verdict:
    if isinstance(found, Verdict):
        return found
    return Verdict(Outcome.UNPARSABLE, found.reason, found.format_reward)
