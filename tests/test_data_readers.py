"""Rows of each dataset become examples, or are refused with the reason."""

import json

import pytest

from expert_iteration.config import FieldsConfig
from expert_iteration.data.readers import MAX_CHARACTERS, READERS, BadRow, Example


def read(name, row, **fields) -> Example:
    return READERS[name](row, FieldsConfig(**fields))


def test_gsm8k_gives_up_calculator_marks_and_thousands_separators():
    row = {"question": "Sums?", "answer": "Add: 900+101=<<900+101=1001>>1,001.\n#### 1,001"}
    assert read("gsm8k", row) == Example("Sums?", "1001", "Add: 900+101=1,001.")


def test_math_takes_the_gold_from_the_answer_or_else_from_the_last_box():
    row = {"problem": "Half?", "solution": "Not $\\boxed{1}$ but $\\boxed{\\frac{1}{2}}$.", "type": "Algebra"}
    assert read("math", row).gold == "\\frac{1}{2}"
    assert read("math", row).subject == "Algebra"
    assert read("math", row | {"answer": "0.5", "subject": "Number Theory"}).gold == "0.5"
    assert read("math", row | {"subject": "Number Theory"}).subject == "Number Theory"


@pytest.mark.parametrize(("written", "read_as"), [("Level 3", "level_3"), (5, "level_5"), (None, "")])
def test_levels_of_math_are_named_alike(written, read_as):
    row = {"problem": "p", "solution": "\\boxed{1}", "level": written}
    assert read("math", row).level == read_as


def test_ifeval_keeps_the_instructions_as_the_gold_without_null_arguments():
    row = {
        "key": 12,
        "prompt": "Write.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{"num_words": None, "relation": "at least"}],
    }
    example = read("ifeval", row)
    assert json.loads(example.gold) == {
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{"relation": "at least"}],
    }
    assert (example.question, example.id) == ("Write.", "12")


def test_fields_of_ones_own_rows_have_the_names_that_one_gives_them():
    row = {"prompt": "One and one?", "answer": 2, "why": "It adds up.", "grade": "easy", "gold": "not this"}
    example = read("jsonl", row, question="prompt", gold="answer", reasoning="why", level="grade")
    assert example == Example("One and one?", "2", "It adds up.", "easy")


@pytest.mark.parametrize(
    ("gold", "text"), [(2, "2"), (0.5, "0.5"), ("1/2", "1/2"), (-3, "-3"), (" 4\n", "4")]
)
def test_a_gold_may_be_a_number(gold, text):
    assert read("jsonl", {"question": "q", "gold": gold}).gold == text


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("gsm8k", {"question": "q"}, "field 'answer' is missing; there are ['question']"),
        ("gsm8k", {"question": "q", "answer": None}, "field 'answer' is None, not a text"),
        ("gsm8k", {"question": " \n", "answer": "#### 1"}, "field 'question' is ' \\n', not a text"),
        ("gsm8k", {"question": "q", "answer": "1"}, "no '####'"),
        ("gsm8k", {"question": "q", "answer": "so\n#### "}, "nothing stands after the '####'"),
        ("math", {"problem": "q", "solution": "Clearly."}, "neither an answer nor a \\boxed{}"),
        ("math", {"problem": "q", "solution": "\\boxed{1}", "answer": ""}, "field 'answer' is ''"),
        ("math", {"problem": "q", "solution": "\\boxed{1}", "level": [1]}, "field 'level' is [1]"),
        ("ifeval", {"prompt": "q", "instruction_id_list": []}, "not two lists"),
        ("ifeval", {"prompt": "q", "instruction_id_list": [], "kwargs": [1]}, "not a list of objects"),
        ("jsonl", {"question": "q", "gold": None}, "field 'gold' is None"),
        ("jsonl", {"question": "q", "gold": True}, "field 'gold' is True"),
        ("jsonl", {"question": "q", "gold": float("nan")}, "field 'gold' is nan"),
        ("jsonl", {"question": ["q"], "gold": "1"}, "field 'question' is ['q']"),
        ("jsonl", {"question": "a\0b", "gold": "1"}, "field 'question' holds a NUL character"),
        ("jsonl", {"question": "ab\udcff", "gold": "1"}, "field 'question' is not UTF-8 (character 3)"),
        ("jsonl", {"question": "q", "gold": "1", "reasoning": 7}, "field 'reasoning' is 7"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_with_the_reason(name, row, words):
    with pytest.raises(BadRow) as refusal:
        read(name, row)
    assert words in str(refusal.value)


def test_a_question_has_a_size_limit_and_the_refusal_is_short():
    read("jsonl", {"question": "q" * MAX_CHARACTERS, "gold": "1"})
    with pytest.raises(BadRow, match="1,000,001 characters, more than 1,000,000") as refusal:
        read("jsonl", {"question": "q" * (MAX_CHARACTERS + 1), "gold": "1"})
    assert len(str(refusal.value)) < 100
    with pytest.raises(BadRow) as refusal:
        read("jsonl", {"question": ["q" * MAX_CHARACTERS], "gold": "1"})
    assert len(str(refusal.value)) < 100
