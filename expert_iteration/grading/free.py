r"""The lenient style, for judging texts that were not asked for a format: the last answer-like expression.

In this order: a marked answer (``####``, boxes, ``<answer>``, a heading "Answer") or what follows
"answer is", whichever stands last; the whole text when it is no prose; and then what math-verify's own
extraction finds, whose patterns are unbounded on hostile text and therefore run in a worker (verifier.py).

Not for training: a text that mentions many numbers has many chances to end on the right one.
"""

import re

from expert_iteration.grading.boxes import joined_boxes
from expert_iteration.grading.exact import normal, quantity
from expert_iteration.grading.extraction import Extraction, found, missing

PROSE_CAP = 2_000
"""Characters at the end of a response that math-verify searches."""
SHORT = 120
"""Length up to which a text may be nothing but an answer."""

_CALCULATION = re.compile(r"<<[^<>\n]*>>")
_HAS_VALUE = re.compile(r"[\d\\]")
_HEADING = re.compile(r"^#{1,6} *(?:Final )?Answer:?\**[ \t]*\n+([^\n]+)", re.MULTILINE | re.IGNORECASE)
_PHRASE = re.compile(
    r"(?:\banswer(?: is\b|:)|^A:)[ :*\n]*+(?!(?:in)?correct\b|right\b|wrong\b)", re.MULTILINE | re.IGNORECASE
)
_DISPLAYED = re.compile(r"\$\$.{1,400}?\$\$|\\\[.{1,400}?\\\]", re.DOTALL)
_SENTENCE = re.compile(r"(?:[^.\n]|\.(?=\S))*")
_LAST_BRACKETS = re.compile(r"(?<!\\)\[([^\[\],]{1,100})\]\.?$")
_COMMAND = re.compile(r"\\(?:text|begin|end)\{[^{}]*\}|\\[A-Za-z]+")
_DOUBLED = re.compile(
    r"(?<!\\)\\\\(?=(?:[dt]?frac|left|right|f?boxed|text|sqrt|pi|[lg]eq?|cup|in)(?![A-Za-z]))"
)
_PROSE = re.compile(r"[A-Za-z]{4,}|[^\x00-\x7f]|[A-Za-z]{2}.*?\b(?!and\b|or\b)[A-Za-z]{2}|[A-Za-z]'[A-Za-z]")


def free(response: str) -> Extraction:
    """Find the last answer-like expression; `Extraction.prose` when that takes math-verify."""
    response = _DOUBLED.sub(r"\\", _CALCULATION.sub("", response.strip()))
    mark, marked = _last_mark(response)
    start, phrase = _last_phrase(response)
    if marked is not None and not (start > mark and _HAS_VALUE.search(phrase) and _is_answer(phrase)):
        return found(marked)
    for text in (phrase, _in_last_brackets(response), response):
        if _is_answer(text):
            return found(text)
    if not response:
        return missing("empty response")
    return Extraction(None, 0.0, "no expression", response[-PROSE_CAP:])


def _last_mark(response: str) -> tuple[int, str | None]:
    """Where the mark that stands last starts, and its content."""
    headings = [match.span(1) for match in _HEADING.finditer(response)]
    start, end = headings[-1] if headings else (-1, -1)
    content = response[start:end] if headings else None
    hashes = response.rfind("####")
    line = response[hashes + 4 :].partition("\n")[0]
    if hashes > start and _HAS_VALUE.search(line):
        start, content = hashes, line
    tag = response.rfind("<answer>")
    inside, closing, _ = response[tag + 8 :].partition("</answer>")
    if tag > start and closing:
        start, content = tag, inside
    box = max(response.rfind(r"\boxed"), response.rfind(r"\fbox"))
    if box > start and (boxed := joined_boxes(response)) is not None:
        start, content = box, boxed
    return start, content


def _last_phrase(response: str) -> tuple[int, str]:
    """Where the last "answer is" ends, and what follows up to the end of its sentence."""
    ends = [match.end() for match in _PHRASE.finditer(response)]
    if not ends:
        return -1, ""
    rest = response[ends[-1] :][:PROSE_CAP]
    match = _DISPLAYED.match(rest) or _SENTENCE.match(rest)
    return ends[-1], " ".join(match[0].split()).rstrip("*") if match else ""


def _in_last_brackets(response: str) -> str:
    match = _LAST_BRACKETS.search(response[-SHORT:])
    return match[1] if match else ""


def _is_answer(text: str) -> bool:
    """Whether a text is nothing but an answer: one line without a word that is no unit."""
    if not text or len(text) > SHORT or "\n" in text.strip():
        return False
    body = _COMMAND.sub("", quantity(normal(text)).body)
    return body.isalpha() or not _PROSE.search(body)
