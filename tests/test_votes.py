"""Which responses vote for the same answer."""

import pytest

from expert_iteration.votes import vote


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("18", "18.0"),
        (r"\frac12", "0.5"),
        ("1,000", "1000"),
        (r"\$18", "18"),
        ("5 cm", "5"),
        ("x + 1", "x+1"),
    ],
)
def test_answers_that_mean_the_same_by_looks_are_one_vote(one, other):
    assert vote("boxed", rf"\boxed{{{one}}}") == vote("boxed", rf"so \boxed{{{other}}}.")


@pytest.mark.parametrize(("one", "other"), [("18", "19"), (r"50\%", "50"), ("x+1", "1+x"), ("5", "-5")])
def test_other_answers_are_other_votes(one, other):
    assert vote("boxed", rf"\boxed{{{one}}}") != vote("boxed", rf"\boxed{{{other}}}")


@pytest.mark.parametrize(
    ("style", "text"),
    [("boxed", "18"), ("boxed", r"\boxed{ }"), ("r1_zero", "<answer> 18 </answer>"), ("ifeval", "a")],
)
def test_a_response_without_an_answer_in_its_format_casts_no_vote(style, text):
    assert vote(style, text) is None
