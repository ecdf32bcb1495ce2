"""Where a response keeps its answer: one function per answer style, each linear in the response.

A style never falls back on another one: a response that does not follow the asked format has no answer.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from expert_iteration.grading.boxes import last_boxed
from expert_iteration.grading.extraction import RESPONSE_CAP, Extraction, found, missing
from expert_iteration.grading.free import free

INSTRUCTION_STYLE = "ifeval"
"""The style of a response whose gold holds instructions instead of an answer."""

LENIENT_STYLE = "free"
"""The style for judging texts that were not asked for a format."""

_DIGIT = re.compile(r"\d")
_MARKUP = re.compile(r"<<[^<>]*>>|<\|[a-z_]+\|>|</?s>")
_R1_ZERO = re.compile(r"</think> <answer>(.*)</answer>\s*", re.DOTALL)


def extract(style: str, response: str) -> Extraction:
    """Find the answer of a response, in time linear in `RESPONSE_CAP`.

    Raises:
        KeyError: the style is not one of `STYLES`.
    """
    return STYLES[style](response[-RESPONSE_CAP:])


@lru_cache(maxsize=2_000)
def extract_gold(style: str, gold: str) -> Extraction:
    """Find the answer in a gold, which may stand in a box, after ``####`` or, for `free`, in prose."""
    if style == LENIENT_STYLE:
        return free(gold[-RESPONSE_CAP:])
    if "boxed" in gold and (content := last_boxed(gold)) is not None:
        return found(content)
    return found(gold.rpartition("####")[2])


def _r1_zero(response: str) -> Extraction:
    """`` </think> <answer> ... </answer>``, each tag once and nothing after; the prompt opened <think>.

    From CS336 assignment 5 (its r1_zero prompt). The last box inside the answer is unwrapped.
    """
    tags_once = all(response.count(tag) == 1 for tag in ("</think>", "<answer>", "</answer>"))
    start = response.find("</think>")
    match = _R1_ZERO.fullmatch(response, start) if tags_once else None
    return missing("not </think> <answer>...</answer>") if match is None else found(_unwrapped(match[1]))


def _boxed(response: str) -> Extraction:
    content = last_boxed(response)
    return missing("no \\boxed{}") if content is None else found(content)


def _gsm8k(response: str) -> Extraction:
    """The rest of the line after the last ``####``, as in the solutions of GSM8K.

    Or a last line ``A: 18``: so end the model solutions that were published with GSM8K. A heading such as
    ``#### Step 2`` after the answer is passed over when another mark has a digit in its line and it has none.
    """
    line = _line_after(response, response.rfind("####"))
    if line is None:
        last = response.rstrip().rpartition("\n")[2]
        return found(_bare(last[2:])) if last.startswith("A:") else missing("no ####")
    if not _DIGIT.search(line):
        marked = (each.rpartition("####") for each in reversed(response.split("\n")) if "####" in each)
        line = next((_bare(rest) for *_, rest in marked if _DIGIT.search(_bare(rest))), line)
    return found(line)


def _line_after(response: str, mark: int) -> str | None:
    """The rest of the line after the ``####`` at `mark`; None without a mark."""
    if mark < 0:
        return None
    end = response.find("\n", mark)
    return _bare(response[mark + 4 : end if end >= 0 else None])


def _bare(line: str) -> str:
    """A line without calculator marks, as ``<<3*4=12>>12``, and without the tokens that end a text."""
    return _MARKUP.sub("", line) if "<" in line else line


def _answer_tag(response: str) -> Extraction:
    before, closing, _ = response.rpartition("</answer>")
    _, opening, content = before.rpartition("<answer>")
    return found(_unwrapped(content)) if closing and opening else missing("no <answer>...</answer>")


def _instructions(response: str) -> Extraction:
    """No answer: the instructions of IFEval are about the whole response, which ifeval.py judges."""
    return Extraction(None, float(bool(response.strip())), "judged as a whole")


def _unwrapped(content: str) -> str:
    boxed = last_boxed(content)
    return content if boxed is None else boxed


STYLES: dict[str, Callable[[str], Extraction]] = {
    "r1_zero": _r1_zero,
    "boxed": _boxed,
    "gsm8k": _gsm8k,
    "answer_tag": _answer_tag,
    LENIENT_STYLE: free,
    INSTRUCTION_STYLE: _instructions,
}
"""Name of a style -> the function that finds the answer in the end of a response."""
