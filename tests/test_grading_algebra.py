"""Laws of reading formulas and of comparing them by their values."""

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expert_iteration.grading.algebra import identical, proportion
from expert_iteration.grading.arithmetic import NoValueError, apply, close
from expert_iteration.grading.formula import Operation, UnreadableError, read

coefficients = st.lists(st.integers(-9, 9), min_size=1, max_size=5)
text = st.text(r"0123456789.,+-*/^_!|()[]{}\ abcefgixyz", max_size=60)


def polynomial(values: list[int]) -> str:
    return "+".join(f"({value})x^{power}" for power, value in enumerate(values))


def nested(values: list[int]) -> str:
    """The same polynomial in Horner's form."""
    return "0" if not values else f"{values[0]}+x({nested(values[1:])})".replace("+-", "-")


@given(values=coefficients)
def test_two_forms_of_a_polynomial_are_identical(values: list[int]) -> None:
    assert identical(polynomial(values), nested(values)) is True


@given(values=coefficients, other=coefficients)
def test_different_polynomials_are_not_identical(values: list[int], other: list[int]) -> None:
    longest = max(len(values), len(other))
    equal = [*values, *[0] * (longest - len(values))] == [*other, *[0] * (longest - len(other))]
    assert identical(polynomial(values), nested(other)) is equal


@given(left=text, right=text)
def test_any_two_texts_are_compared_without_an_error(left: str, right: str) -> None:
    assert identical(left, right) in (True, False, None)
    assert proportion((left, right), (right, left)) in (1, 0, -1, None)


@given(one=text)
def test_a_text_that_is_read_is_never_different_from_itself(one: str) -> None:
    assert identical(one, one) is not False


AMBIGUOUS = [
    *(
        "",
        "2+",
        "4 2",
        r"2\frac{5}{3}",
        r"2\frac{1}{3}x",
        "x2",
        "5!!",
        "(1",
        "1)",
        "x=1",
        "1,2",
        "x_",
        "x^",
        "|x",
    ),
    *("word?", r"\foo x", r"\text{five}", r"\sqrt", r"\frac{1}", "(" * 60 + "x" + ")" * 60, "x+" * 300 + "x"),
]


@pytest.mark.parametrize("ambiguous", AMBIGUOUS)
def test_what_is_no_formula_or_could_mean_two_things_is_not_read(ambiguous: str) -> None:
    with pytest.raises(UnreadableError):
        read(ambiguous)


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        (r"2\frac{3}{4}", Fraction(11, 4)),
        (r"\frac{1}2", Fraction(1, 2)),
        ("-2^2", Fraction(-4)),
        ("6/2/3", Fraction(1)),
        ("2^{-2}", Fraction(1, 4)),
        (r"\sqrt[3]{-8}", Fraction(-2)),
        (r"8^{2/3}", Fraction(4)),
        (r"\lfloor -2.5 \rfloor", Fraction(-3)),
        (r"\lceil \pi \rceil", Fraction(4)),
        ("||-3|-5|", Fraction(2)),
        ("5!/3!", Fraction(20)),
        (r"\binom{5}{2}", Fraction(10)),
        ("1,000", Fraction(1000)),
    ],
)
def test_rational_values_are_exact(formula: str, value: Fraction) -> None:
    assert identical(formula, str(value)) is True
    assert identical(formula, str(value + Fraction(1, 10**40))) is False


@pytest.mark.parametrize(
    "formula",
    ["1/0", "0^0", "(-2)!", "10^{10^{10}}", "1001!", r"\sqrt{-4}", r"\ln 0", "e^{e^{e^{9}}}", r"\arcsin 2"],
)
def test_what_has_no_value_or_a_huge_one_stays_undecided(formula: str) -> None:
    assert identical(formula, formula) is None


def test_a_letter_before_brackets_is_a_function_for_f_g_h_and_a_factor_otherwise() -> None:
    assert read("f(2)") == "f(2)"
    assert read("a(2)") == Operation("*", ("a", Fraction(2)))


def test_operations_outside_of_their_domain_have_no_value() -> None:
    with pytest.raises(NoValueError):
        apply("/", [Fraction(1), Fraction(0)])


def test_irrational_values_agree_to_thirty_digits() -> None:
    [two, half] = Fraction(2), Fraction(1, 2)
    root = apply("^", [two, half])
    assert close(apply("*", [root, root]), two)
    assert not close(root, Fraction(14142135623730950488, 10**19))


def test_relations_are_equal_up_to_a_factor_whose_sign_turns_inequalities() -> None:
    assert proportion(("2x", "4"), ("x", "2")) == 1
    assert proportion(("x", "2"), ("2", "x")) == -1
    assert proportion(("x^2", "2"), ("x", "2")) == 0
    assert proportion(("x", "?"), ("x", "2")) is None


def test_threads_may_compare_at_once() -> None:
    formulas = [rf"\sin {n}+\sqrt{{{n}}}" for n in range(2, 40)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda one: identical(one, one.replace("+", "+0+")), formulas * 5))
    assert found == [True] * len(found)
