"""When two questions are the same, and which part of a set owns a question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expert_iteration.data.questions import normalised, part_of

SHARES = {"train": 0.9, "evaluation": 0.1}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How many eggs?", "how  many\neggs"),
        ("Tom's eggs, all of them.", "Tom\u2019s eggs all of them!"),
        ("Find $x + 1$.", "Find $x+1$"),
        ("Really?!", "really..."),
        ("caf\u00e9", "cafe\u0301"),
    ],
)
def test_case_white_space_and_the_punctuation_of_prose_make_no_other_question(one, other):
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 3 - 2?", "What is 3 + 2?"),
        ("What is 1.5?", "What is 15?"),
        ("The point $(2,3)$", "The point $(23)$"),
        ("What is 5!?", "What is 5?"),
        ("What is 5\u00b2?", "What is 52?"),
        ("1 23", "12 3"),
        ("to gether", "together"),
        ("$x_2$", "$x^2$"),
    ],
)
def test_what_a_formula_says_does(one, other):
    assert normalised(one) != normalised(other)


@given(st.text())
def test_a_normalised_question_is_its_own_normal_form_but_for_what_casefolding_composes(text):
    assert " " not in (normalised(text)[:1], normalised(text)[-1:])
    assert normalised(f" {text}\t") == normalised(text)


def test_hostile_questions_are_normalised_in_linear_time():
    for text in ("." * 500_000 + "a", " ." * 250_000, "!" * 500_000, "\n" * 500_000 + "a"):
        assert len(normalised(text)) <= len(text)


def test_parts_have_their_shares():
    parts = [part_of(f"Question {number}?", SHARES) for number in range(10_000)]
    assert 0.09 < parts.count("evaluation") / 10_000 < 0.11


def test_the_part_of_a_question_depends_on_its_normal_form_and_the_seed_alone():
    questions = [f"Question {number}?" for number in range(200)]
    parts = [part_of(question, SHARES) for question in questions]
    assert parts == [part_of(question.upper() + " ", SHARES) for question in questions]
    assert parts == [part_of(question, {"train": 9, "evaluation": 1}) for question in questions]
    assert parts != [part_of(question, SHARES, seed=1) for question in questions]


def test_a_larger_share_keeps_the_questions_of_a_smaller_one():
    questions = [f"Question {number}?" for number in range(2000)]
    small = {q for q in questions if part_of(q, SHARES) == "evaluation"}
    large = {q for q in questions if part_of(q, {"train": 0.7, "evaluation": 0.3}) == "evaluation"}
    assert small < large
