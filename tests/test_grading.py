"""Laws of answer extraction and of the comparisons that need no math-verify."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from expert_iteration.config import GradingConfig
from expert_iteration.grading import STYLES, Grader, Response
from expert_iteration.grading.boxes import last_boxed
from expert_iteration.grading.comparison import compare
from expert_iteration.grading.exact import normal, number
from expert_iteration.grading.extraction import ANSWER_CAP, RESPONSE_CAP
from expert_iteration.grading.refusal import refusal
from expert_iteration.grading.structure import leaves
from expert_iteration.grading.styles import extract
from expert_iteration.types import Outcome, Verdict

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
    with Grader(GradingConfig(workers=1)) as grader:
        return grader.grade([Response(style, response, gold)])[0]


def exactly(answer: str, gold: str) -> Outcome | None:
    """Outcome without math-verify; None when it would be asked."""
    found = compare(answer, gold)
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
        assert 0 < len(found.answer) <= ANSWER_CAP
        # `free` joins several boxes to a list and reads a doubled backslash as one.
        assert found.answer in response or style == "free"


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
        ("boxed", r"so \boxed 7$ dollars", "7"),
        ("boxed", r"\boxed7", "7"),
        ("boxed", r"\boxed -7.", "-7"),
        ("boxed", r"\fbox{7}", "7"),
        ("gsm8k", "so\n#### 3\nno\n#### 72\nQuestion: next", "72"),
        ("gsm8k", "so it is 72. #### 72", "72"),
        ("gsm8k", "#### 72<|endoftext|>", "72"),
        ("gsm8k", "#### <<8*9=72>>72", "72"),
        ("gsm8k", "#### 72\n\n#### Explanation\nas above", "72"),
        ("gsm8k", "She has 3*4=<<3*4=12>>12\nA: 12\n", "12"),
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
        ("boxed", r"\boxed word"),
        ("boxed", r"\boxed{7\}"),
        ("gsm8k", r"\boxed{7}"),
        ("gsm8k", "A: 7\nSo it is 7."),
        ("answer_tag", "7</answer>"),
        ("answer_tag", "<answer>7"),
    ],
)
def test_a_style_never_guesses_an_answer_in_another_format(style: str, response: str) -> None:
    found = extract(style, response)
    assert found.answer is None and found.format_reward == 0.0


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"$\frac{1}{2}$", r"$\frac{1}{2}$"),
        ("x = 3", "x = 3"),
        ("28 percent", "28 percent"),
        ("so\n#### 72", "72"),
        ("She has 3*4=<<3*4=12>>12\nA: 12", "12"),
        ("So it is 7i - 2.\n\n# Answer\n\n7i - 2", "7i - 2"),
        ("<think>3 or 4</think><answer>4</answer>", "4"),
        (r"first \boxed{3}, and at last \boxed{7}.", "7"),
        (r"\boxed{1} and $\boxed{-2}$", "1, -2"),
        (r"$x = \boxed{1}$, $y = \boxed{-2}$", "1, -2"),
        (r"\boxed{7}, I mean \boxed{7}", "7"),
        (r"Doubled: $\\boxed{\\frac{1}{2}}$", r"\frac{1}{2}"),
        ("The answer is 42.", "42"),
        ("The answer is $1,234.50.", "$1,234.50"),
        ("**Answer:** $x=5$", "$x=5$"),
        ("Final Answer: The final answer is $(0, 1)$. I hope it is correct.", "$(0, 1)$"),
        ("The answer is\n\\[\n\\frac12\n\\]", r"\[ \frac12 \]"),
        (r"It is \boxed{3} eggs a day. The final answer is 21.", "21"),
        (r"The answer is \boxed{3}. I hope this answer is correct.", "3"),
        ("The answer is 21. I hope this answer is correct.", "21"),
        ("The angle is [90].", "90"),
    ],
)
def test_the_free_style_finds_marks_phrases_and_bare_answers(response: str, answer: str) -> None:
    assert extract("free", response).answer == answer


@pytest.mark.parametrize(
    "response", ["So he pays $18 every day.", "it's not 10 it's 12", "x\n" * 3, "4\u0301"]
)
def test_the_free_style_leaves_prose_to_math_verify(response: str) -> None:
    found = extract("free", response)
    assert found.answer is None and found.prose == response.strip()


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


@given(value=integers, place=st.integers(0, 11), inserted=st.sampled_from(" ,\n~._^/:*\0x\u200b²½0"))
def test_a_character_inside_an_integer_never_leaves_another_integer(
    value: int, place: int, inserted: str
) -> None:
    assume(value != 0 or inserted != "x")  # 0x is 0
    text = str(value)
    changed = text[:place] + inserted + text[place:]
    assert exactly(changed, text) is not Outcome.CORRECT or number(normal(changed)) == value


@given(answer=any_text, gold=any_text)
def test_comparing_any_two_texts_never_raises(answer: str, gold: str) -> None:
    compare(answer, gold)


@given(answer=formula_like, gold=formula_like)
def test_comparing_any_two_formulas_never_raises(answer: str, gold: str) -> None:
    compare(answer, gold)


@given(text=formula_like)
def test_a_text_is_equal_to_itself(text: str) -> None:
    assert exactly(text, text) in (Outcome.CORRECT, Outcome.ERROR if not normal(text) else Outcome.CORRECT)


EQUAL = [
    # Numbers
    (r"\frac12", "0.5"),
    (r"\dfrac{1}{2}", "1/2"),
    (r"\frac 34", ".75"),
    (r"{3 \over 4}", ".75"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"\frac{8}{16}", r"\frac12"),
    (r"2\frac34", r"\frac{11}{4}"),
    ("1 1/2", "1.5"),
    (r"0.\overline{36}", r"\frac{4}{11}"),
    (r"0.1\overline{6}", r"\frac16"),
    ("12,345", "12345"),
    ("12{,}345", "12345"),
    (r"12\,345", "12345"),
    (r"10,\! 080", "10080"),
    ("+5", "5"),
    ("5.", "5"),
    ("3 million", "3000000"),
    (r"3 \times 10^8", "300000000"),
    ("10^3", "1000"),
    (r"5!", "120"),
    (r"\binom{10}{3}", "120"),
    ("4\N{FULLWIDTH DIGIT TWO}", "42"),
    ("½", "0.5"),
    # Units: left out, spelled differently, or a mere description
    ("36", r"\$36"),
    ("$36", "36"),
    (r"36\$", r"\$36"),
    ("36 dollars", r"\$36"),
    (r"\$1,234.00", "1234"),
    (r"50\%", "0.5"),
    ("50", r"50\%"),
    (r"90^{\circ}", "90"),
    ("90°", r"90^\circ"),
    ("90 degrees", r"90^\circ"),
    ("5 square inches", r"5\text{ inches}^2"),
    ("5 cm²", r"5\text{ square centimeters}"),
    (r"5\ \mathrm{ft}", r"5 \text{ feet}"),
    (r"12\text{ square units}", r"12 \text{ cm}^2"),
    ("144 cookies", "144"),
    (r"18\text{ ways}", "18"),
    (r"18\text{ different ways}", r"18\text{ ways.}"),
    (r"864\pi", r"864 \pi \mbox{ inches}^2"),
    ("9:30", r"9:30 \text{ p.m.}"),
    ("7^{th}", "7"),
    # What stands around an answer
    ("**18**", "18"),
    ("= 18", "18"),
    (r"\approx 18", "18"),
    (r"\text{The area is } 18", "18"),
    (r"{\color{blue}18}", "18"),
    (r"\boldsymbol{18}", "18"),
    (r"\left(18\right)", "18"),
    # Subjects and chains
    (r"P(A) = \frac12", r"\frac12"),
    (r"\angle ABC = 30^\circ", "30"),
    ("AB + BC = 7", "7"),
    ("x = 2 + 3 = 5", "5"),
    (r"\frac{243}{625} = 0.3888", r"\frac{243}{625}"),
    ("2x + 3", "y = 2x + 3"),
    ("5 = x", "x = 5"),
    # Structures
    ("-2,  1", "-2,1"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}2)"),
    ("(x, y) = (1, 2)", "(1,2)"),
    (r"(0.5, 2]", r"\left(\frac12, 2\right]"),
    (r"x \in [-2,7]", "[-2, 7]"),
    (r"-2 \leq x \leq 7", "[-2, 7]"),
    ("[2, 5)", r"2 \le x < 5"),
    ("x > 3", r"(3, +\infty)"),
    ("x < -1 or x > 1", r"(-\infty,-1) \cup (1,\infty)"),
    (r"(9,36) \cup (0,9)", r"(0,9) \cup (9,36)"),
    (r"\mathbb{R}", r"(-\infty,\infty)"),
    ("x=1, y=2", "1, 2"),
    (r"x = 1 \text{ or } x = -2", "1,-2"),
    ("$1$ and $-2$", "1,-2"),
    ("7, -2, and -5", r"7, -2, \text{ and } -5"),
    (r"\{2,1\}", r"\{1,2\}"),
    (r"\{-2, 1\}", "1,-2"),
    (r"1+\sqrt2, 1-\sqrt2", r"1 \pm \sqrt{2}"),
    ("-3, 3", r"\pm 3"),
    (r"\frac14 \text{ or } 0.25", r"\frac14"),
    (r"\begin{bmatrix} 1 \\[2pt] 2 \end{bmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\left(\begin{array}{c} 1 \\ 2 \end{array}\right)", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\frac12 \begin{pmatrix} 1 \\ 4 \end{pmatrix}", r"\begin{pmatrix} 0.5 \\ 2 \end{pmatrix}"),
    # Words and literals
    ("C", r"\text{(C)}"),
    (r"\textbf{(C)}", "C"),
    ("evelyn", r"\text{Evelyn}"),
    ("June 20.", r"\text{June 20}"),
    ("A, C", r"\text{A,C}"),
    (r"52_{8}", "52_8"),
    (r"(52)_{\text{8}}", "52_8"),
    # Algebra
    ("1+x", "x+1"),
    ("x²", "x^{2}"),
    (r"2\sqrt{5}", r"\sqrt{20}"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
    (r"\sqrt{2+\sqrt3}", r"\frac{\sqrt6+\sqrt2}{2}"),
    ("(b+2)(a+5)", "ab+2a+5b+10"),
    (r"\frac{x+2}{7}", r"\frac{x}{7}+\frac{2}{7}"),
    ("7i - 2", "-2+7i"),
    ("6 - 5 i", "6-5i"),
    (r"\tan^2 y+1", r"\sec^2(y)"),
    (r"\log_2 8", "3"),
    (r"x\sqrt{x}", "x^{3/2}"),
    (r"|x-1|", r"\left|1-x\right|"),
    ("x/2", r"\frac{1}{2}x"),
    ("y = 3 + 2x", "y = 2x + 3"),
    ("5x-7y+11z=-4", "5x - 7y + 11z + 4 = 0"),
    ("x + 2y = 6", r"y = -\frac12 x + 3"),
    ("5 > x", "x < 5"),
]

DIFFERENT = [
    ("4 2", "42"),
    ("1, 234", "1234"),
    ("(1,234)", "1234"),
    ("0.333333", r"\frac13"),
    ("0.0000002", "0.0000001"),
    ("3.14", r"\pi"),
    ("5 cm", r"5\text{ m}"),
    (r"5\text{ cm}^2", r"5\text{ cm}^3"),
    ("5 miles", "5 km"),
    ("36 cents", r"\$36"),
    ("40 meters", r"40\text{ points}"),
    ("575 teachers", r"575\text{ students}"),
    ("5 thousand", "5"),
    (r"5 \text{ dozen}", "5"),
    ("9:30 a.m.", r"9:30 \text{ p.m.}"),
    (r"0.5\%", "0.5"),
    ("1½", "11/2"),
    ("2²", "22"),
    ("1 1/2", "11/2"),
    ("3/2", r"2\frac34"),
    ("40", "40_9"),
    ("8:31", "8:30"),
    ("2+2", "4"),
    (r"17 \cdot 3", "51"),
    ("(1,2)", "[1,2]"),
    ("1,2", "(1,2)"),
    ("(1,2)", "(2,1)"),
    ("2,1", "1,2"),
    ("(1,2,3)", "(1,2)"),
    ("(1,2]", "(1,2)"),
    (r"\{1,2\}", "(1,2)"),
    ("3, 7", "7"),
    ("3 or 7", "7"),
    ("x=5, 6", "5"),
    ("x+1=5", "5"),
    ("-x=5", "5"),
    ("2+2=5", "5"),
    (r"5 \approx 6", "6"),
    (r"x \ge 5", "5"),
    ("x > 5", r"[5,\infty)"),
    ("x > 5", "x < 5"),
    (r"x \le 5", "x < 5"),
    (r"[-\infty,2)\cup(3,\infty)", r"(-\infty,2)\cup(3,\infty)"),
    (r"1+\sqrt2", r"1\pm\sqrt2"),
    (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    ("odd", r"\text{even}"),
    ("not even", r"\text{even}"),
    (r"-\text{even}", r"\text{even}"),
    ("eastern", r"\text{east}"),
    (r"\frac{1}{0}", "0"),
    ("x", "|x|"),
    ("x+y", "x-y"),
    ("y = 5", "x = 5"),
    ("x^2 = -1", "x^2 = -2"),
    ("f(2) < f(1)", "f(4) < f(3)"),
    ("2^{200}+1", "2^{200}"),
    (r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}"),
    (r"1+\frac{1}{\mathrm{e}}", r"1-\frac{1}{\mathrm{e}}"),
    (r"3.14159265358979323846", r"\pi"),
]


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_equal_answers_are_correct_without_math_verify(answer: str, gold: str) -> None:
    assert exactly(answer, gold) is Outcome.CORRECT


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_different_answers_are_never_correct_without_math_verify(answer: str, gold: str) -> None:
    assert exactly(answer, gold) is not Outcome.CORRECT


def test_a_list_without_brackets_keeps_its_order_unless_any_order_will_do() -> None:
    strict, lenient = compare("-3, 2, 1", "1, 2, -3"), compare("-3, 2, 1", "1, 2, -3", any_order=True)
    assert isinstance(strict, Verdict) and strict.outcome is Outcome.WRONG
    assert isinstance(lenient, Verdict) and lenient.outcome is Outcome.CORRECT
    for answer in ("(2, 1)", "-3, 2", "-3, 2, 2"):
        missed = compare(answer, "(1, 2)" if "(" in answer else "1, 2, -3", any_order=True)
        assert isinstance(missed, Verdict) and missed.outcome is Outcome.WRONG


def test_structures_must_have_the_same_brackets_and_count() -> None:
    assert leaves("((1,2),[3,4])", "((a,b),[c,d])") == [("1", "a"), ("2", "b"), ("3", "c"), ("4", "d")]
    assert leaves("((1,2),(3,4))", "((a,b),[c,d])") is None
    assert leaves(r"\begin{matrix}1&2\end{matrix}", r"\begin{matrix}a&b\end{matrix}") == [
        ("1", "a"),
        ("2", "b"),
    ]
    assert leaves(r"\begin{matrix}1&2\end{matrix}", "m") is None
    assert leaves("(a+5)(b+2)", "(b+2)(a+5)") == [("(a+5)(b+2)", "(b+2)(a+5)")]


@given(text=formula_like)
def test_normal_spelling_is_a_fixed_point(text: str) -> None:
    assert normal(normal(normal(text))) == normal(normal(text))


# --- refusal ---

HOSTILE = [
    "9^{9^9}",
    "2^{3^{4^5}}",
    r"2^{-9^{9^9}}",
    "10^{1000000}",
    r"\sqrt[99999999]{2}",
    "9!!!",
    r"\sum_{k=1}^{9}k",
    r"\prod_{k=1}^{9}k",
    r"\int_0^1 x^x dx",
    r"\binom{1000000000}{500000000}",
    "2+" + "(2+" * 13 + "x" + ")" * 13,
]
BOUNDED = ["9^9^9", "1" * 400, "x^" * 120 + "x", r"\sin " * 60 + "x", r"e^{e^{e^{e^{9}}}}", "2^" * 150 + "2"]


@pytest.mark.parametrize("form", HOSTILE)
def test_a_hostile_answer_is_unparsable_unless_it_is_the_gold(form: str) -> None:
    assert exactly(form, "y") is Outcome.UNPARSABLE
    assert exactly(form, form) is Outcome.CORRECT


@pytest.mark.parametrize("form", HOSTILE)
def test_a_hostile_gold_is_an_error_that_names_the_gold(form: str) -> None:
    judged = compare("y", form)
    assert isinstance(judged, Verdict)
    assert judged.outcome is Outcome.ERROR and judged.reason.startswith("gold: ") and judged.abstains


@pytest.mark.parametrize("form", [*HOSTILE, *BOUNDED])
def test_no_formula_is_computed_for_long(form: str) -> None:
    start = time.process_time()
    assert exactly(form, "7") is not Outcome.CORRECT
    assert exactly(form, "7+y") is not Outcome.CORRECT
    assert time.process_time() - start < 1


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
    rows = [("#### 7", "7"), ("#### 8", "7"), ("7", "7"), ("#### seven", "7"), ("#### 7", "")]
    with Grader(GradingConfig(workers=1)) as grader:
        judged = grader.grade([Response("gsm8k", *row) for row in rows])
    outcomes = [Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSABLE, Outcome.WRONG, Outcome.ERROR]
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
