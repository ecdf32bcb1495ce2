"""Laws of answer extraction and of the comparisons that need no math-verify."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expert_iteration.config import GradingConfig
from expert_iteration.grading import STYLES, Grader
from expert_iteration.grading.exact import normal, number, same
from expert_iteration.grading.grader import compare_exactly
from expert_iteration.grading.refusal import refusal
from expert_iteration.grading.structure import leaves
from expert_iteration.grading.styles import ANSWER_CAP, RESPONSE_CAP, extract, last_boxed
from expert_iteration.types import Outcome, Verdict

CASES = Path(__file__).parents[1] / "../shared/data/grader_cases"

any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=80)
formula_like = st.text(r"0123456789+-*/^_=<>()[]{}\$%.,:;! abcxyz", max_size=40)
pieces = st.lists(
    st.sampled_from(
        ["</think>", " ", "<answer>", "</answer>", "####", r"\boxed{", r"\boxed", "{", "}", r"\{", "\\", "7"]
    ),
    max_size=15,
).map("".join)
integers = st.integers(-(10**9), 10**9)


def verdict(style: str, response: str, gold: str) -> Verdict:
    with Grader(style, GradingConfig(workers=1)) as grader:
        return grader.grade([(response, gold)])[0]


def exactly(answer: str, gold: str) -> Outcome | None:
    """Outcome without math-verify; None when it would be asked."""
    found = compare_exactly(answer, gold)
    return found.outcome if isinstance(found, Verdict) else None


def spellings(value: int) -> list[str]:
    return [
        f"{value}",
        f" {value}. ",
        f"{value:,}",
        f"{value}.0",
        f"${value}$",
        rf"\({value:,}\)".replace(",", r",\!"),
        f"{value}".replace("-", "\N{MINUS SIGN}"),
        rf"\frac{{{3 * value}}}{{3}}",
        rf"{value}\text{{ miles}}",
        rf"\left({value}\right)",
        f"x = {value}",
    ]


# --- styles ---


@pytest.mark.parametrize("style", STYLES)
@given(response=st.one_of(any_text, pieces))
def test_every_style_reads_any_text(style: str, response: str) -> None:
    found = extract(style, response)
    assert found.format_reward in (0.0, 1.0)
    assert (found.answer is None) == bool(found.reason)
    if found.answer is not None:
        assert found.format_reward == 1.0
        assert found.answer in response and 0 < len(found.answer) <= ANSWER_CAP


@pytest.mark.parametrize(
    ("style", "response", "answer"),
    [
        ("r1_zero", "so it is 7.</think> <answer>7</answer>", "7"),
        ("r1_zero", r"so </think> <answer> It is \boxed{7}. </answer>" + "\n", "7"),
        ("boxed", r"first \boxed{3}, no, \boxed{7}.", "7"),
        ("boxed", r"\boxed{\boxed{7}}", "7"),
        ("boxed", r"\boxed {\frac{1}{2}}", r"\frac{1}{2}"),
        ("boxed", r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("boxed", r"\boxed{7} and then \boxed{8", "7"),
        ("gsm8k", "so\n#### 3\nno\n#### 72\nQuestion: next", "72"),
        ("answer_tag", "<answer>3</answer> no <answer> 7 </answer> done", "7"),
    ],
)
def test_a_style_finds_the_answer_that_was_given_last(style: str, response: str, answer: str) -> None:
    assert extract(style, response).answer == answer
    assert extract(style, response).format_reward == 1.0


@pytest.mark.parametrize(
    ("style", "response"),
    [
        ("r1_zero", "7"),
        ("r1_zero", "<answer>7</answer>"),
        ("r1_zero", "</think><answer>7</answer>"),
        ("r1_zero", "</think>\n<answer>7</answer>"),
        ("r1_zero", "</think> <answer>7"),
        ("r1_zero", "</think> <answer>7</answer> or 8"),
        ("r1_zero", "</think> <answer>7</answer></think> <answer>8</answer>"),
        ("boxed", "#### 7"),
        ("boxed", r"\boxed{7"),
        ("boxed", r"\boxed7"),
        ("boxed", r"\boxed{7\}"),
        ("gsm8k", r"\boxed{7}"),
        ("answer_tag", "7</answer>"),
        ("answer_tag", "<answer>7"),
    ],
)
def test_a_style_never_guesses_an_answer_in_another_format(style: str, response: str) -> None:
    found = extract(style, response)
    assert found.answer is None and found.format_reward == 0.0


def test_an_empty_answer_has_the_format_but_nothing_to_judge() -> None:
    for style, response in (
        ("boxed", r"\boxed{ }"),
        ("r1_zero", "</think> <answer></answer>"),
        ("gsm8k", "####"),
    ):
        judged = verdict(style, response, "7")
        assert (judged.outcome, judged.format_reward) == (Outcome.UNPARSABLE, 1.0)


def test_an_answer_over_the_cap_is_not_judged() -> None:
    assert extract("boxed", rf"\boxed{{{'1' * ANSWER_CAP}}}").answer is not None
    assert extract("boxed", rf"\boxed{{{'1' * (ANSWER_CAP + 1)}}}").answer is None


def test_only_the_end_of_a_long_response_is_read() -> None:
    assert extract("boxed", "x" * 1_000_000 + r"\boxed{7}").answer == "7"
    assert extract("boxed", r"\boxed{7}" + "x" * RESPONSE_CAP).answer is None


@pytest.mark.parametrize(
    "unit", ["{", "}", r"\boxed{", r"\boxed ", "\\", "<answer>", "</think> ", "####", " "]
)
@pytest.mark.parametrize("style", STYLES)
def test_a_megabyte_of_one_pattern_holds_no_answer(style: str, unit: str) -> None:
    assert extract(style, unit * (1_000_000 // len(unit))).answer is None


@given(content=st.text("ab7 ", max_size=10), before=pieces.filter(lambda text: not text.endswith("\\")))
def test_the_last_box_is_found_behind_anything(content: str, before: str) -> None:
    assert last_boxed(before + rf"\boxed{{{content}}}") == content


def test_the_last_box_of_a_solution_may_be_deeply_nested() -> None:
    depth = 20_000
    assert last_boxed(r"\boxed{" * depth + "7" + "}" * depth) == "7"
    assert last_boxed(r"\boxed{" + "{" * depth + "7" + "}" * depth + "}") == "{" * depth + "7" + "}" * depth


def test_an_unknown_style_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"task\.style \(free\) is none of r1_zero, boxed, gsm8k, answer_tag"
    ):
        Grader("free", GradingConfig())


# --- exact comparison ---


@given(value=integers)
def test_every_spelling_of_an_integer_is_that_integer(value: int) -> None:
    for answer in spellings(value):
        assert exactly(answer, str(value)) is Outcome.CORRECT, answer


@given(value=integers, other=integers)
def test_no_spelling_of_a_wrong_integer_is_correct(value: int, other: int) -> None:
    if value == other:
        other += 1
    for answer in spellings(other):
        assert exactly(answer, str(value)) is Outcome.WRONG, answer


@given(value=integers, place=st.integers(0, 11), inserted=st.sampled_from(" ,\n~._^/:*!\0x\u200b²½0"))
def test_a_character_inside_an_integer_never_leaves_another_integer(
    value: int, place: int, inserted: str
) -> None:
    text = str(value)
    changed = text[:place] + inserted + text[place:]
    assert exactly(changed, text) is not Outcome.CORRECT or number(normal(changed)) == value


@given(answer=any_text, gold=any_text)
def test_comparing_any_two_texts_never_raises(answer: str, gold: str) -> None:
    compare_exactly(answer, gold)


@given(answer=formula_like, gold=formula_like)
def test_comparing_any_two_formulas_never_raises(answer: str, gold: str) -> None:
    compare_exactly(answer, gold)


@given(text=formula_like)
def test_a_text_is_equal_to_itself(text: str) -> None:
    assert exactly(text, text) in (Outcome.CORRECT, Outcome.ERROR if not normal(text) else Outcome.CORRECT)


EQUAL = [
    (r"\frac12", "0.5"),
    (r"\dfrac{1}{2}", "1/2"),
    (r"\frac 34", ".75"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"2\frac34", r"\frac{11}{4}"),
    ("1 1/2", "1.5"),
    ("12,345", "12345"),
    ("12{,}345", "12345"),
    (r"10,\! 080", "10080"),
    ("36", r"\$36"),
    ("$36", "36"),
    ("36 dollars", r"\$36"),
    (r"50\%", "0.5"),
    ("50", r"50\%"),
    (r"90^{\circ}", "90"),
    ("90°", r"90^\circ"),
    ("5 square inches", r"5\text{ inches}^2"),
    ("4\N{FULLWIDTH DIGIT TWO}", "42"),
    ("½", "0.5"),
    ("x²", "x^{2}"),
    ("-2,  1", "-2,1"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}2)"),
    (r"(0.5, 2]", r"\left(\frac12, 2\right]"),
    (r"x \in [-2,7]", "[-2, 7]"),
    ("x=1, y=2", "1, 2"),
    ("C", r"\text{(C)}"),
    ("evelyn", r"\text{Evelyn}"),
    (r"864\pi", r"864 \pi \mbox{ inches}^2"),
    (r"52_{8}", "52_8"),
]

DIFFERENT = [
    ("4 2", "42"),
    ("1, 234", "1234"),
    ("(1,234)", "1234"),
    ("0.333333", r"\frac13"),
    ("0.0000002", "0.0000001"),
    ("5 cm", r"5\text{ m}"),
    ("36 cents", r"\$36"),
    (r"0.5\%", "0.5"),
    ("1½", "11/2"),
    ("2²", "22"),
    ("1 1/2", "11/2"),
    ("3/2", r"2\frac34"),
    ("40", "40_9"),
    ("8:31", "8:30"),
    ("(1,2)", "[1,2]"),
    ("1,2", "(1,2)"),
    ("(1,2)", "(2,1)"),
    ("2,1", "1,2"),
    ("(1,2,3)", "(1,2)"),
    ("(1,2]", "(1,2)"),
    (r"\{1,2\}", "(1,2)"),
    ("3, 7", "7"),
    ("x=5, 6", "5"),
    ("x+1=5", "5"),
    ("2+2=5", "5"),
    (r"x \ge 5", "5"),
    ("odd", r"\text{even}"),
    ("eastern", r"\text{east}"),
    (r"\frac{1}{0}", "0"),
]


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_equal_answers_are_correct_without_math_verify(answer: str, gold: str) -> None:
    assert exactly(answer, gold) is Outcome.CORRECT


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_different_answers_are_never_correct_without_math_verify(answer: str, gold: str) -> None:
    assert exactly(answer, gold) is not Outcome.CORRECT


def test_what_takes_algebra_stays_undecided() -> None:
    assert same(normal("x+1"), normal("1+x")) is None
    assert compare_exactly("(x+1, 2)", "(1+x, 2)") == [("x+1", "1+x")]


def test_structures_must_have_the_same_brackets_and_count() -> None:
    assert leaves("((1,2),[3,4])", "((a,b),[c,d])") == [("1", "a"), ("2", "b"), ("3", "c"), ("4", "d")]
    assert leaves("((1,2),(3,4))", "((a,b),[c,d])") is None
    assert leaves(r"\begin{pmatrix}1,2\end{pmatrix}", "m") == [(r"\begin{pmatrix}1,2\end{pmatrix}", "m")]
    assert leaves("(a+5)(b+2)", "(b+2)(a+5)") == [("(a+5)(b+2)", "(b+2)(a+5)")]


# --- refusal ---

HOSTILE = [
    "9^9^9",
    "9^{9^9}",
    "2^{3^{4^5}}",
    r"2^{-9^{9^9}}",
    "10^{1000000}",
    r"\sqrt[99999999]{2}",
    "9!!!",
    r"\sum_{k=1}^{9}k",
    r"\prod_{k=1}^{9}k",
    r"\int_0^1 x^x dx",
    r"\binom{10}{5}",
    "1" * 41 + "x",
    "2+" + "(2+" * 13 + "x" + ")" * 13,
]


@pytest.mark.parametrize("form", HOSTILE)
def test_a_hostile_answer_is_unparsable_unless_it_is_the_gold(form: str) -> None:
    assert exactly(form, "y") is Outcome.UNPARSABLE
    assert exactly(form, form) is Outcome.CORRECT


@pytest.mark.parametrize("form", HOSTILE)
def test_a_hostile_gold_is_an_error_that_names_the_gold(form: str) -> None:
    judged = compare_exactly("y", form)
    assert isinstance(judged, Verdict)
    assert judged.outcome is Outcome.ERROR and judged.reason.startswith("gold: ") and judged.abstains


@pytest.mark.parametrize("gold", ["", "  ", "$$", "x" * (ANSWER_CAP + 1)])
def test_an_empty_or_endless_gold_is_an_error(gold: str) -> None:
    assert exactly("7", gold) is Outcome.ERROR


@pytest.mark.parametrize(
    "form",
    [
        "x^5-x^4+x^3",
        "a^3b^2+c^5d",
        "e^{x^2}",
        r"\frac{\sqrt{3}}{3}",
        r"\begin{pmatrix}1\\2\end{pmatrix}",
        "x^{99}",
    ],
)
def test_ordinary_formulas_are_not_refused(form: str) -> None:
    assert refusal(normal(form)) is None


# --- grader ---


def test_verdicts_come_in_order_and_carry_the_format_reward() -> None:
    with Grader("gsm8k", GradingConfig(workers=1)) as grader:
        judged = grader.grade(
            [("#### 7", "7"), ("#### 8", "7"), ("7", "7"), ("#### seven", "7"), ("#### 7", "")]
        )
    outcomes = [Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSABLE, Outcome.UNPARSABLE, Outcome.ERROR]
    assert [one.outcome for one in judged] == outcomes
    assert [one.format_reward for one in judged] == [1.0, 1.0, 0.0, 1.0, 1.0]


def test_importing_the_grader_loads_neither_torch_nor_sympy() -> None:
    heavy = {"torch", "sympy", "math_verify", "ray"}
    check = f"import sys, expert_iteration.grading; print({heavy} & set(sys.modules))"
    root = str(Path(__file__).parents[1])
    result = subprocess.run(
        [sys.executable, "-c", check], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


@pytest.mark.skipif(not CASES.exists(), reason="the shared grader cases are not here")
def test_every_answer_of_math500_is_correct_against_itself() -> None:
    rows = [json.loads(line) for line in (CASES / "math500_self.jsonl").read_text().splitlines()]
    with Grader("boxed", GradingConfig(workers=1)) as grader:
        judged = grader.grade([(row["pred"], row["gold"]) for row in rows])
    assert len(judged) == 500
    assert [row["gold"] for row, one in zip(rows, judged, strict=True) if not one.success] == []
