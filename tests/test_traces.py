"""When two answers count as the same."""

import pytest

from expert_iteration.choices import Duplicates
from expert_iteration.traces import equations, fingerprint


def test_white_space_and_case_make_no_difference_and_all_else_does() -> None:
    assert fingerprint(" 4 * 3 = 12 Eggs") == fingerprint("4*3=12\neggs")
    assert fingerprint("4*3=12") != fingerprint("3*4=12")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("He has 4 * 3 = 12 eggs, then 12 - 2.5 = 9.5.", ("4*3=12", "12-2.5=9.5")),
        ("$1,000 / 4 = $250 each", ("1000/4=250",)),
        ("3 x (2 + 4) = 18", ("3*(2+4)=18",)),
        ("2 + 3 + 4 = 9", ("2+3+4=9",)),
        ("x = 5, so y = 6", ()),
    ],
)
def test_equations_are_read_in_order(text: str, found: tuple[str, ...]) -> None:
    assert equations(text) == found


def test_answers_that_compute_the_same_count_as_one_where_that_is_asked_for() -> None:
    one, other = "First 4*3=12, so 12.", "We get 4 * 3 = 12 in all."
    assert fingerprint(one, Duplicates.equations) == fingerprint(other, Duplicates.equations)
    assert fingerprint(one, Duplicates.text) != fingerprint(other, Duplicates.text)


def test_answers_without_equations_go_by_their_text() -> None:
    assert fingerprint("twelve", Duplicates.equations) != fingerprint("ten", Duplicates.equations)
