"""(response, gold) -> Verdict: find the answer, compare exactly, and only then ask math-verify."""

from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from types import TracebackType
from typing import Self

from expert_iteration.config import GradingConfig
from expert_iteration.grading.exact import normal, quantity, same
from expert_iteration.grading.pool import Pool
from expert_iteration.grading.refusal import refusal
from expert_iteration.grading.structure import leaves
from expert_iteration.grading.styles import ANSWER_CAP, STYLES, Extraction, extract
from expert_iteration.types import Outcome, Verdict

CACHE_SIZE = 100_000
"""Verdicts remembered; about 30 MB of short answers."""

Pair = tuple[str, str]
"""Answer and gold."""


class Grader:
    """Judges responses of one answer style. Use it as a context manager, or call `close`.

    Any text gets a verdict: `grade` raises for no response and no gold. It may be called from several
    threads at once.
    """

    def __init__(self, style: str, config: GradingConfig) -> None:
        """Nothing is started yet.

        Raises:
            ValueError: the style is not one of `STYLES`.
        """
        if style not in STYLES:
            raise ValueError(f"task.style ({style}) is none of {', '.join(STYLES)}.")
        self._style = style
        self._pool = Pool(config.workers, config.deadline)
        self._known: dict[Pair, Verdict] = {}
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

    def grade(self, rows: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Judge (response, gold) rows, in order; equal (answer, gold) pairs are compared once.

        Raises:
            WorkerStartError: math-verify is needed and cannot be started.
        """
        found = [(extract(self._style, response), gold) for response, gold in rows]
        pairs = [(extraction.answer, gold) for extraction, gold in found if extraction.answer is not None]
        verdicts = self._compare(list(dict.fromkeys(pairs)))
        return [_verdict(extraction, gold, verdicts) for extraction, gold in found]

    def _compare(self, pairs: list[Pair]) -> dict[Pair, Verdict]:
        """Judge distinct pairs, from memory where possible."""
        with self._lock:
            verdicts = {pair: self._known[pair] for pair in pairs if pair in self._known}
        open_leaves: dict[Pair, list[Pair]] = {}
        for pair in pairs:
            if pair not in verdicts:
                settled = compare_exactly(*pair)
                if isinstance(settled, Verdict):
                    verdicts[pair] = settled
                else:
                    open_leaves[pair] = settled
        verdicts |= self._ask(open_leaves)
        self._remember(verdicts)
        return verdicts

    def _ask(self, open_leaves: dict[Pair, list[Pair]]) -> dict[Pair, Verdict]:
        """Judge by math-verify what no exact rule settles: an answer is correct if all its leaves are."""
        questions = list(dict.fromkeys(leaf for pair in open_leaves.values() for leaf in pair))
        replies = dict(zip(questions, self._pool.map(questions), strict=True))
        return {
            pair: _combined([Verdict(*replies[leaf]) for leaf in asked])
            for pair, asked in open_leaves.items()
        }

    def _remember(self, verdicts: dict[Pair, Verdict]) -> None:
        """Keep what was settled; a timeout may have been the machine's fault and is tried again."""
        with self._lock:
            self._known |= {pair: verdict for pair, verdict in verdicts.items() if not verdict.abstains}
            while len(self._known) > CACHE_SIZE:
                del self._known[next(iter(self._known))]


def compare_exactly(answer: str, gold: str) -> Verdict | list[Pair]:
    """The verdict on a pair if no algebra is needed, else the pairs of formulas that decide it."""
    if len(gold) > ANSWER_CAP:
        return Verdict(Outcome.ERROR, f"gold: longer than {ANSWER_CAP} characters")
    answer, gold = normal(answer), normal(gold)
    if not gold:
        return Verdict(Outcome.ERROR, "gold: empty")
    if not answer:
        return Verdict(Outcome.UNPARSABLE, "empty answer")
    whole = same(answer, gold)
    if whole is not None:
        return _exact(whole)
    pairs = leaves(answer, gold)
    if pairs is None:
        return Verdict(Outcome.WRONG, "structure")
    return _compare_leaves(pairs)


def _compare_leaves(pairs: list[Pair]) -> Verdict | list[Pair]:
    settled = [(pair, same(*pair)) for pair in pairs]
    if any(equal is False for _, equal in settled):
        return _exact(False)
    undecided = [pair for pair, equal in settled if equal is None]
    formulas = [(quantity(left).body, quantity(right).body) for left, right in undecided]
    refused = [verdict for formula in formulas if (verdict := _refused(*formula)) is not None]
    if refused:
        return _combined(refused)
    return formulas or _exact(True)


def _refused(answer: str, gold: str) -> Verdict | None:
    if (reason := refusal(gold)) is not None:
        return Verdict(Outcome.ERROR, f"gold: {reason}")
    if (reason := refusal(answer)) is not None:
        return Verdict(Outcome.UNPARSABLE, reason)
    return None


def _exact(equal: bool) -> Verdict:
    return Verdict(Outcome.CORRECT if equal else Outcome.WRONG, "exact")


def _combined(verdicts: list[Verdict]) -> Verdict:
    """One wrong leaf makes a wrong answer; otherwise a leaf that could not be judged decides."""
    order = (Outcome.WRONG, Outcome.ERROR, Outcome.TIMEOUT, Outcome.UNPARSABLE, Outcome.CORRECT)
    return min(verdicts, key=lambda verdict: order.index(verdict.outcome))


def _verdict(extraction: Extraction, gold: str, verdicts: dict[Pair, Verdict]) -> Verdict:
    if extraction.answer is None:
        return Verdict(Outcome.UNPARSABLE, extraction.reason, extraction.format_reward)
    return replace(verdicts[extraction.answer, gold], format_reward=extraction.format_reward)
