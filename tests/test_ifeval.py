"""IFEval: what meets each instruction, what a gold may be, and a worker that needs no network."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expert_iteration.config import GradingConfig, RewardConfig
from expert_iteration.grading import Grader, Response, shaped
from expert_iteration.grading.ifeval import (
    INSTRUCTION_WORKER,
    INSTRUCTIONS,
    LANGUAGES,
    InstructionGrader,
    problem_with,
)
from expert_iteration.grading.pool import Pool
from expert_iteration.grading.styles import RESPONSE_CAP
from expert_iteration.types import Outcome, Verdict

OFFICIAL = Path(__file__).parents[1] / "../shared/data/ifeval/input_data.jsonl"
NO_COMMA = "punctuation:no_comma"


@dataclass(frozen=True)
class Case:
    """An instruction, a response that meets it and one that does not."""

    name: str
    arguments: dict[str, Any]
    meets: str
    misses: str


CASES = [
    Case(
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "STOP and then GO.",
        "STOP and then go.",
    ),
    Case(
        "change_case:english_capital",
        {},
        "ALL OF THIS SHORT TEXT IS LOUD.",
        "ALL OF THIS SHORT TEXT is LOUD.",
    ),
    Case(
        "change_case:english_lowercase",
        {},
        "all of this short text is quiet.",
        "All of this short text is quiet.",
    ),
    Case(
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Name a river."},
        "Name a river. The Rhine.",
        "The Rhine.",
    ),
    Case("combination:two_responses", {}, "The Rhine.\n******\nThe Rhone.", "The Rhine. Or the Rhone."),
    Case(
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        "Dear [name], come to [place].",
        "Dear [name], come.",
    ),
    Case(
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        "See you.\nP.S. Bring bread.",
        "See you. Bring bread.",
    ),
    Case("detectable_format:constrained_response", {}, "My answer is maybe.", "Perhaps."),
    Case("detectable_format:json_format", {}, '```json\n{"rivers": ["Rhine"]}\n```', "{rivers: Rhine}"),
    Case(
        "detectable_format:multiple_sections",
        {"section_spliter": "Part", "num_sections": 2},
        "Part 1\nWater.\nPart 2\nStone.",
        "Part 1\nWater and stone.",
    ),
    Case("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* water\n- stone", "* water"),
    Case(
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        "*Water* and *stone*.",
        "*Water* and stone.",
    ),
    Case("detectable_format:title", {}, "<<On rivers>>\nThey flow.", "<< >>\nThey flow."),
    Case("keywords:existence", {"keywords": ["water", "stone"]}, "Stone in water.", "Water."),
    Case("keywords:forbidden_words", {"forbidden_words": ["ever"]}, "It never ends.", "Will it ever end?"),
    Case(
        "keywords:frequency",
        {"keyword": "rain", "frequency": 2, "relation": "at least"},
        "Rain after rain.",
        "Rain.",
    ),
    Case(
        "keywords:letter_frequency",
        {"letter": "z", "let_frequency": 2, "let_relation": "less than"},
        "A zebra.",
        "A puzzle.",
    ),
    Case(
        "language:response_language",
        {"language": "de"},
        "Heute ist das Wetter schön, und wir gehen in den Wald.",
        "The weather is fine today, and we walk in the woods.",
    ),
    Case(
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "We ate.\n\nThen, we slept.",
        "Then we ate.\n\nWe slept.",
    ),
    Case(
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        "We ate.\n***\nWe slept.",
        "We ate.\n\nWe slept.",
    ),
    Case(
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
        "Mr. Stone of Palo Alto, Calif. came on the 3rd of Sept. with Prof. Lake.",
        "He came. He left.",
    ),
    Case(
        "length_constraints:number_words",
        {"num_words": 4, "relation": "at least"},
        "We all went home.",
        "We went home.",
    ),
    Case(NO_COMMA, {}, "We came and left.", "We came, we left."),
    Case(
        "startend:end_checker",
        {"end_phrase": "That is all."},
        "We left. That is all.",
        "That is all. We left.",
    ),
    Case("startend:quotation", {}, '"We left."', '"We left.'),
]


def gold(*pairs: tuple[str, dict[str, Any]]) -> str:
    names, arguments = zip(*pairs, strict=True)
    return json.dumps({"instruction_id_list": names, "kwargs": arguments})


EVERYTHING = gold(*((case.name, case.arguments) for case in CASES))


@pytest.fixture(scope="module")
def grader() -> Iterator[InstructionGrader]:
    grader = InstructionGrader(GradingConfig(workers=1, deadline=20.0))
    yield grader
    grader.close()


# --- verdicts ---


def test_there_is_a_case_for_every_instruction() -> None:
    assert sorted(case.name for case in CASES) == sorted(INSTRUCTIONS)
    assert len(INSTRUCTIONS) == 25


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_instruction_is_met_by_one_response_and_not_by_another(
    grader: InstructionGrader, case: Case
) -> None:
    one = gold((case.name, case.arguments))
    met, missed = grader.grade([(case.meets, one), (case.misses, one)])
    assert (met.outcome, met.partial, met.answer_reward) == (Outcome.CORRECT, 0.0, 1.0)
    assert met.counts == {"instructions": 1, "strict": 1, "loose": 1}
    assert (missed.outcome, missed.partial) == (Outcome.WRONG, 0.0)
    assert missed.counts["strict"] == 0
    assert missed.reason == f"not met: {case.name}"


def test_the_reward_is_the_share_of_instructions_that_are_met(grader: InstructionGrader) -> None:
    three = gold(
        (NO_COMMA, {}), ("startend:quotation", {}), ("keywords:existence", {"keywords": ["river", "stone"]})
    )
    [two_met, all_met] = grader.grade([('"A river, a stone."', three), ('"A river and a stone."', three)])
    assert (two_met.outcome, two_met.partial) == (Outcome.WRONG, 2 / 3)
    assert two_met.counts == {"instructions": 3, "strict": 2, "loose": 2}
    assert two_met.reason == f"not met: {NO_COMMA}"
    rewards = [shaped(RewardConfig(), verdict, range(9), 99) for verdict in (two_met, all_met)]
    assert rewards == [2 / 3, 1.0]


@pytest.mark.parametrize(
    "response",
    ["Here it is, my friend:\nIt rains.", "It rains.\nWell, is that good?", "Here, now:\nRain.\nOh, no."],
)
def test_a_line_around_the_answer_is_forgiven_loosely_only(grader: InstructionGrader, response: str) -> None:
    [verdict] = grader.grade([(response, gold((NO_COMMA, {})))])
    assert verdict.outcome is Outcome.WRONG
    assert verdict.counts == {"instructions": 1, "strict": 0, "loose": 1}


def test_asterisks_are_forgiven_loosely_only(grader: InstructionGrader) -> None:
    ending = gold(("startend:end_checker", {"end_phrase": "That is all."}))
    [verdict] = grader.grade([("**That is all.**", ending)])
    assert (verdict.counts["strict"], verdict.counts["loose"]) == (0, 1)


@pytest.mark.parametrize("response", ["", " \n\t"])
def test_an_empty_response_meets_nothing_and_has_no_format(grader: InstructionGrader, response: str) -> None:
    [verdict] = grader.grade([(response, gold((NO_COMMA, {}), ("detectable_format:title", {})))])
    assert (verdict.outcome, verdict.format_reward, verdict.answer_reward) == (Outcome.UNPARSABLE, 0.0, 0.0)
    assert verdict.counts == {"instructions": 2, "strict": 0, "loose": 0}


def test_any_other_response_has_the_format(grader: InstructionGrader) -> None:
    judged = grader.grade([(text, gold((NO_COMMA, {}))) for text in ("Rain.", "Rain, rain.")])
    assert [verdict.format_reward for verdict in judged] == [1.0, 1.0]


def test_a_language_that_is_hard_to_tell_is_told_the_same_way_every_time(grader: InstructionGrader) -> None:
    # Unless its seed is set, langdetect takes this for French one time in six.
    asked = gold(("language:response_language", {"language": "fr"}))
    judged = grader.grade([("bonjour amigo mio", asked + " " * n) for n in range(40)])
    assert len({verdict.outcome for verdict in judged}) == 1


def test_a_letter_that_the_scorer_must_draw_is_drawn_the_same_way_every_time(
    grader: InstructionGrader,
) -> None:
    asked = gold(
        ("keywords:letter_frequency", {"letter": "#", "let_frequency": 1, "let_relation": "at least"})
    )
    judged = grader.grade([("the quick brown fox", asked + " " * n) for n in range(40)])
    assert len({verdict.outcome for verdict in judged}) == 1


# --- golds ---


def test_names_arguments_and_languages_are_those_of_the_scorer() -> None:
    code = (
        "import json, sys\n"
        "from expert_iteration.grading.instruction_worker import load_scorer\n"
        "known = load_scorer().INSTRUCTION_DICT\n"
        "made = {name: checker(name) for name, checker in known.items()}\n"
        "for one in made.values():\n"
        "    one.build_description(**{'prompt_to_repeat': 'x'} if 'Repeat' in type(one).__name__ else {})\n"
        "arguments = {name: one.get_instruction_args_keys() for name, one in made.items()}\n"
        "languages = list(sys.modules['ifeval._instructions'].LANGUAGE_CODES)\n"
        "print(json.dumps([arguments, languages]))\n"
    )
    arguments, languages = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert {name: set(keys) for name, keys in arguments.items()} == {
        name: set(kinds) for name, kinds in INSTRUCTIONS.items()
    }
    assert sorted(languages) == LANGUAGES.split()


def test_the_golds_of_the_cases_have_no_problem() -> None:
    assert problem_with(EVERYTHING) is None


@pytest.mark.skipif(not OFFICIAL.exists(), reason="the data of IFEval is not here")
def test_no_official_gold_has_a_problem_and_its_prompt_can_be_judged(grader: InstructionGrader) -> None:
    rows = [json.loads(line) for line in OFFICIAL.read_text().splitlines()]
    golds = [json.dumps({key: row[key] for key in ("instruction_id_list", "kwargs")}) for row in rows]
    assert len(golds) == 541
    assert [problem_with(one) for one in golds] == [None] * 541
    judged = grader.grade([(row["prompt"], one) for row, one in zip(rows, golds, strict=True)])
    assert not any(verdict.abstains for verdict in judged)
    assert sum(verdict.counts["instructions"] for verdict in judged) == 834


def test_an_argument_that_is_null_counts_as_absent(grader: InstructionGrader) -> None:
    sparse = gold(("keywords:existence", {"num_words": None, "keywords": ["rain"], "relation": None}))
    assert problem_with(sparse) is None
    assert grader.grade([("Rain.", sparse)])[0].success


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("42", ["instruction_id_list", "kwargs"]),
        ("punctuation:no_comma", ["not JSON"]),
        ("[" * 100_000, ["not JSON"]),
        ('{"instruction_id_list": [], "kwargs": []}', ["at least 1"]),
        ('{"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}', ["one length"]),
        ('{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [[]]}', ["[]", "not a mapping"]),
        (gold(("punctuation:commas", {})), ["punctuation:commas", "no instruction"]),
        (gold((NO_COMMA, {"num_words": 3})), [NO_COMMA, "num_words"]),
        (gold(("keywords:existence", {})), ["keywords:existence", "keywords"]),
        (gold(("keywords:existence", {"keywords": []})), ["keywords", "[]"]),
        (gold(("keywords:existence", {"keywords": ["("]})), ["'('", "regular expression"]),
        (gold(("keywords:existence", {"keywords": ["a{99999999999}"]})), ["regular expression"]),
        (gold(("startend:end_checker", {"end_phrase": ""})), ["end_phrase", "a text"]),
        (gold(("language:response_language", {"language": "xx"})), ["'xx'", "en"]),
        (
            gold(("length_constraints:number_words", {"num_words": 0, "relation": "at least"})),
            ["num_words", "0"],
        ),
        (gold(("length_constraints:number_words", {"num_words": True, "relation": "at least"})), ["True"]),
        (gold(("length_constraints:number_words", {"num_words": 9, "relation": "at most"})), ["at most"]),
    ],
)
def test_a_gold_that_cannot_be_judged_is_named_and_its_verdict_abstains(
    grader: InstructionGrader, bad: str, words: list[str]
) -> None:
    problem = problem_with(bad)
    assert problem is not None and "\n" not in problem and len(problem) < 400
    for word in words:
        assert word in problem
    [verdict] = grader.grade([("Rain.", bad)])
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, f"gold: {problem}")


# --- hostile text ---


@settings(deadline=None, max_examples=60)
@given(
    response=st.text(
        st.characters(codec=None, exclude_categories=()) | st.sampled_from('\n.*-"[{<'), max_size=60
    )
)
def test_any_text_is_judged_by_every_instruction(grader: InstructionGrader, response: str) -> None:
    [verdict] = grader.grade([(response, EVERYTHING)])
    assert not verdict.abstains
    assert 0 <= verdict.counts["strict"] <= verdict.counts["loose"] <= verdict.counts["instructions"] == 25


def test_megabytes_meet_nothing(grader: InstructionGrader) -> None:
    quiet = gold((NO_COMMA, {}))
    [longest, longer] = grader.grade([("x" * RESPONSE_CAP, quiet), ("x" * 5_000_000, quiet)])
    assert longest.success
    assert (longer.outcome, longer.counts["strict"]) == (Outcome.UNPARSABLE, 0)


def test_brackets_nested_too_deep_for_json_are_not_json(grader: InstructionGrader) -> None:
    json_only = gold(("detectable_format:json_format", {}), (NO_COMMA, {}))
    [verdict] = grader.grade([("[" * 30_000 + "]" * 30_000, json_only)])
    assert verdict.reason == "not met: detectable_format:json_format"


@pytest.mark.parametrize(
    ("name", "arguments", "response"),
    [
        ("keywords:existence", {"keywords": ["(a|a)+$"]}, "a" * 60 + "b"),
        ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "\n" * (RESPONSE_CAP - 1) + "x"),
    ],
)
def test_a_search_without_end_is_ended_and_the_next_response_is_judged(
    name: str, arguments: dict[str, Any], response: str
) -> None:
    grader = InstructionGrader(GradingConfig(workers=1, deadline=1.0))
    endless, easy = grader.grade([(response, gold((name, arguments))), ("Rain.", gold((NO_COMMA, {})))])
    grader.close()
    assert (endless.outcome, endless.format_reward, endless.counts) == (Outcome.TIMEOUT, 1.0, {})
    assert easy.success


def test_a_pattern_that_the_scorer_cannot_use_is_an_error_and_the_next_response_is_judged(
    grader: InstructionGrader,
) -> None:
    # Forbidden words are searched between word boundaries, and flags must come first.
    flagged = gold(("keywords:forbidden_words", {"forbidden_words": ["(?i)rain"]}))
    broken, easy = grader.grade([("Rain.", flagged), ("Rain.", gold((NO_COMMA, {})))])
    assert broken.outcome is Outcome.ERROR
    assert easy.success


# --- the worker ---


NO_SOCKETS = """
import os, sys
sys.addaudithook(lambda event, _: os._exit(77) if event.startswith("socket.") else None)
"""


def test_a_worker_opens_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_SOCKETS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    caught = subprocess.run([sys.executable, "-P", "-c", "import socket; socket.socket()"], check=False)
    assert caught.returncode == 77
    grader = InstructionGrader(GradingConfig(workers=1, deadline=20.0))
    pairs = [(text, EVERYTHING) for case in CASES for text in (case.meets, case.misses)]
    assert not any(verdict.abstains for verdict in grader.grade(pairs))
    grader.close()


def test_a_worker_loads_no_torch_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(f"import tempfile\ntempfile.tempdir = {str(tmp_path)!r}\n")
    before = set(tmp_path.iterdir())
    pool = Pool(INSTRUCTION_WORKER, workers=1, deadline=20.0)
    assert json.loads(str(pool.map([("Rain.", gold((NO_COMMA, {})))])[0])) == {
        "strict": [True],
        "loose": [True],
    }
    [worker] = pool.processes()
    assert "libtorch" not in Path(f"/proc/{worker}/maps").read_text()
    assert {path for path in tmp_path.iterdir() if path.name != "__pycache__"} == before
    pool.close()


# --- the grader ---


def test_the_grader_judges_instructions_and_answers_in_order() -> None:
    asked = gold((NO_COMMA, {}))
    with Grader(GradingConfig(workers=1, deadline=20.0)) as grader:
        judged = grader.grade(
            [
                Response("gsm8k", "#### 7", "7"),
                Response("ifeval", "Rain.", asked),
                Response("gsm8k", "#### 8", "7"),
                Response("ifeval", "Rain, rain.", asked),
            ]
        )
    assert [verdict.success for verdict in judged] == [True, True, False, False]
    assert judged[0] == Verdict(Outcome.CORRECT, "exact", 1.0)
    assert judged[3].reason == f"not met: {NO_COMMA}"


def test_closing_the_grader_ends_its_workers() -> None:
    before = workers_here()
    with Grader(GradingConfig(workers=1, deadline=20.0)) as grader:
        grader.grade([Response("ifeval", "Rain.", gold((NO_COMMA, {})))])
        assert len(workers_here() - before) == 1
    assert workers_here() == before


def workers_here() -> set[int]:
    """Instruction workers that this process has started."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
        check=True,
    )
    return {int(line.split()[0]) for line in listed.stdout.splitlines() if INSTRUCTION_WORKER.name in line}
