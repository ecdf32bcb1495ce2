"""Rows are sifted: whole, new, and with a gold that the grader accepts of its own author."""

import json

import pytest

from expert_iteration.config import FieldsConfig, GradingConfig
from expert_iteration.data.checking import Sifted, only_spelled, sift
from expert_iteration.data.demonstrations import STYLES_OF_TASKS, demonstration
from expert_iteration.data.files import Line
from expert_iteration.data.readers import Example
from expert_iteration.grading import Grader, Response
from tests.data import dataset


@pytest.fixture(scope="module")
def grader():
    with Grader(GradingConfig(workers=1)) as one:
        yield one


def sifted(grader, *rows, limit=None, **keys) -> Sifted:
    lines = (Line(f"own.jsonl:{number}", row) for number, row in enumerate(rows, start=1))
    return sift(lines, dataset(**keys), grader, limit)


def row(question, gold, **more):
    return {"question": question, "gold": gold} | more


def questions(found: Sifted) -> list[str]:
    return [example.question for example in found.examples]


def reasons(found: Sifted) -> list[tuple[str, str]]:
    return [(dropped.reason, dropped.text) for dropped in found.dropped]


def test_rows_that_are_dropped_leave_the_numbers_and_places_of_the_others(grader):
    found = sifted(grader, row("a", "1"), {"question": "b"}, row("c", "3"))
    assert [(e.question, e.number, e.place) for e in found.examples] == [
        ("a", 0, "own.jsonl:1"),
        ("c", 2, "own.jsonl:3"),
    ]
    assert found.rows == 3
    assert reasons(found) == [("fields", "own.jsonl:2: field 'gold' is missing; there are ['question']")]


def test_a_line_that_could_not_be_read_is_dropped_with_its_problem(grader):
    found = sift([Line("own.jsonl:1", {}, "not JSON")], dataset(), grader)
    assert reasons(found) == [("unreadable", "own.jsonl:1: not JSON")]


def test_a_limit_counts_rows_from_the_start_bad_ones_included(grader):
    found = sifted(grader, row("a", "1"), {}, row("c", "3"), row("d", "4"), limit=3)
    assert (found.rows, questions(found)) == (3, ["a", "c"])


def test_of_equal_questions_the_first_stays(grader):
    found = sifted(grader, row("How many?", "1"), row("else", "2"), row("how  many", "1"))
    assert questions(found) == ["How many?", "else"]
    assert reasons(found) == [("same_question", "own.jsonl:3: the question of own.jsonl:1 again")]


def test_a_question_again_with_another_gold_is_dropped_and_both_places_are_named(grader):
    found = sifted(grader, row("How many?", "1"), row("How many", "2"))
    assert questions(found) == ["How many?"]
    ((reason, text),) = reasons(found)
    assert reason == "same_question_other_gold"
    assert text == "own.jsonl:2: the question of own.jsonl:1 again, with the gold '2' instead of '1'"


def test_of_equal_ids_the_first_stays(grader):
    found = sifted(grader, row("a", "1", id=7), row("b", "2", id="7"), row("c", "3"), row("d", "4"))
    assert questions(found) == ["a", "c", "d"]
    assert reasons(found) == [("same_id", "own.jsonl:2: the id 7 is that of own.jsonl:1")]


def test_a_question_whose_first_row_has_a_bad_gold_is_kept_from_its_second(grader):
    found = sifted(grader, row("a", "1</answer>"), row("a", "1"))
    assert [example.number for example in found.examples] == [1]


@pytest.mark.parametrize(
    ("style", "gold", "words"),
    [
        ("r1_zero", "1 </answer>", "is not judged correct but unparsable"),
        ("r1_zero", "x" * 401, "is not judged correct but"),
        ("gsm8k", "1\n2", "is not judged correct but"),
        ("boxed", "}1{", "is not judged correct but"),
        ("boxed", "\\boxed{", "is not judged correct but"),
    ],
)
def test_a_gold_that_its_own_style_cannot_carry_is_dropped(grader, style, gold, words):
    found = sifted(grader, row("a", gold), row("b", "1"), style=style)
    assert questions(found) == ["b"]
    ((reason, text),) = reasons(found)
    assert reason == "gold"
    assert text.startswith("own.jsonl:1: the gold ")
    assert words in text
    assert len(text) < 250


def test_a_worked_solution_that_breaks_the_format_is_dropped(grader):
    found = sifted(grader, row("a", "1", reasoning="I write </answer> too early."))
    assert [reason for reason, _ in reasons(found)] == ["gold"]


@pytest.mark.parametrize("style", [style for style in STYLES_OF_TASKS if style != "ifeval"])
@pytest.mark.parametrize(
    "gold", ["72", "\\frac{1}{2}", "\\text{Monday}", "x^2+1", "(3,\\frac{\\pi}{2}]", "1, 2"]
)
def test_a_worked_response_is_judged_correct_in_every_style(grader, style, gold):
    for reasoning in ("", "Half of $\\boxed{4}$ is 2.\nSo it is 2."):
        response = demonstration(style, Example("q", gold, reasoning)) or ""
        assert response == response.strip()
        (verdict,) = grader.grade([Response(style, response, gold)])
        assert verdict.success


def test_instructions_have_a_check_of_their_own(grader):
    def asked(name, **arguments):
        return {"prompt": name, "instruction_id_list": [name], "kwargs": [arguments]}

    rows = (asked("punctuation:no_comma"), asked("no:such"), asked("startend:end_checker", end_phrase=None))
    found = sifted(grader, *rows, name="ifeval", style="ifeval")
    assert questions(found) == ["punctuation:no_comma"]
    assert [text.split(":")[1] for _, text in reasons(found)] == ["2", "3"]
    assert json.loads(found.examples[0].gold)["kwargs"] == [{}]


@pytest.mark.parametrize("gold", ["2^{3^{4^5}}", "\\frac{1}{2004!}"])
def test_forms_that_math_verify_is_never_asked_about_are_met_by_spelling_only(gold):
    assert only_spelled(gold)


@pytest.mark.parametrize("gold", ["72", "1,234.5", "\\frac{3}{4}", "x^2+1", "(1,2)", "50\\%", "Monday"])
def test_numbers_formulas_and_words_are_not(gold):
    assert not only_spelled(gold)


def test_fields_are_named_by_the_dataset(grader):
    found = sifted(grader, {"prompt": "a", "gold": 1}, fields=FieldsConfig(question="prompt"))
    assert questions(found) == ["a"]
