"""The embedded default task: its problems, its pupils, its tokenizer and its model."""

import random
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2ForCausalLM

from expert_iteration.demo import MODEL_FOLDER
from expert_iteration.demo.problems import (
    COMPUTE,
    HELD_OUT_SIZE,
    LARGEST,
    Problem,
    Split,
    base_corpus,
    held_out,
    solution,
    split_of,
    train,
)
from expert_iteration.demo.pupils import FORGETS_LAST_STEP, SLIPS, careless_steps
from expert_iteration.demo.tokenizer import TAGS, VOCABULARY_SIZE, render

ADVERTISED_PARAMETERS = 854_144


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return train(2000, seed=0)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(MODEL_FOLDER)


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def parse(step: str) -> tuple[int, str, int, int]:
    expression, result = step.split("=")
    symbol = next(character for character in expression if character in COMPUTE)
    left, right = expression.split(symbol)
    return int(left), symbol, int(right), int(result)


def test_no_question_is_in_two_splits(problems: list[Problem]) -> None:
    pools = [held_out(), problems, base_corpus(4000, seed=0)]
    questions = [{problem.question for problem in pool} for pool in pools]
    assert len(set.union(*questions)) == sum(len(pool) for pool in pools)


def test_the_split_is_known_from_the_question_alone(problems: list[Problem]) -> None:
    assert {split_of(problem.question) for problem in problems} == {Split.train}
    assert {split_of(problem.question) for problem in held_out()} == {Split.held_out}


def test_every_hash_bucket_has_exactly_one_split() -> None:
    assert sorted(bucket for split in Split for bucket in split.value) == list(range(16))


def test_a_seed_gives_the_same_problems_and_another_seed_gives_others(problems: list[Problem]) -> None:
    assert train(2000, seed=0) == problems
    assert train(2000, seed=1) != problems


def test_fewer_problems_are_a_prefix_of_more() -> None:
    assert held_out(100) == held_out()[:100]


def test_twenty_thousand_training_questions_are_distinct() -> None:
    assert len({problem.question for problem in train(20_000, seed=3)}) == 20_000


def test_too_many_held_out_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="1200 problems, 1201 were asked for"):
        held_out(HELD_OUT_SIZE + 1)


def test_the_splits_hold_every_difficulty_in_the_stated_mix(problems: list[Problem]) -> None:
    corpus = base_corpus(800, seed=0)
    for difficulty, share in zip((1, 2, 3, 4), (100, 200, 200, 300), strict=True):
        assert sum(problem.difficulty == difficulty for problem in problems) == 500
        assert sum(problem.difficulty == difficulty for problem in held_out()) == 300
        assert sum(problem.difficulty == difficulty for problem in corpus) == share


def test_the_steps_are_a_correct_chain_that_ends_in_the_answer(problems: list[Problem]) -> None:
    for problem in problems:
        steps = [parse(step) for step in problem.steps]
        assert all(COMPUTE[symbol](left, right) == result for left, symbol, right, result in steps)
        assert all(before[3] == after[0] for before, after in pairwise(steps))
        assert steps[-1][3] == problem.answer


def test_every_number_is_told_or_computed_and_in_range(problems: list[Problem]) -> None:
    for problem in problems:
        for left, symbol, right, result in map(parse, problem.steps):
            assert 1 <= result <= LARGEST and 1 <= left <= LARGEST and 2 <= right <= 6
            assert symbol != "/" or result * right == left


def test_a_question_holds_none_of_its_worked_steps(problems: list[Problem]) -> None:
    assert not any(step in problem.question for problem in problems for step in problem.steps)


def test_a_solution_goes_on_where_the_prompt_ends() -> None:
    problem = Problem(
        "Tom has 4 boxes of 3 figs. He buys 5 more. How many figs now?", 17, ("4*3=12", "12+5=17")
    )
    assert solution(problem) == " 4*3=12; 12+5=17 </think> <answer> 17 </answer>"


def test_pupils_forget_the_last_step_as_often_as_stated(problems: list[Problem]) -> None:
    rng = random.Random(0)
    longer = [problem for problem in problems if problem.difficulty > 1]
    forgotten = [len(careless_steps(problem, rng)[0]) - problem.difficulty for problem in longer]
    assert set(forgotten) == {0, -1}
    assert -sum(forgotten) / len(longer) == pytest.approx(FORGETS_LAST_STEP, abs=0.04)


def test_pupils_slip_as_often_as_stated_and_carry_the_slip_on(problems: list[Problem]) -> None:
    rng = random.Random(0)
    slipped = 0
    for problem in problems:
        written, answer = careless_steps(problem, rng)
        assert parse(written[-1])[3] == answer
        assert all(parse(before)[3] == parse(after)[0] for before, after in pairwise(written))
        slipped += tuple(written) != problem.steps[: len(written)]
    assert slipped / len(problems) == pytest.approx(SLIPS, abs=0.04)


def test_a_one_step_problem_is_never_left_without_an_answer(problems: list[Problem]) -> None:
    rng = random.Random(0)
    assert all(careless_steps(problem, rng)[0] for problem in problems if problem.difficulty == 1)


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_the_tokenizer_gives_back_any_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(encode(tokenizer, text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "  two  spaces, a\ttab\n\nand lines \r\n ",
        "naïve café, 数学, 🙂, 1234, don't",
        "e\u0301 is not composed, \u00a0 does not break",
        "<think> 4*3=12 </think> <answer> 12 </answer><|im_end|>",
    ],
)
def test_white_space_unicode_and_tags_survive_the_tokenizer(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    assert tokenizer.decode(encode(tokenizer, text)) == text


def test_auto_tokenizer_reads_the_folder_in_the_same_way(
    tokenizer: PreTrainedTokenizerFast, problems: list[Problem]
) -> None:
    automatic: Any = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    texts = [render(tokenizer, problem.question) + solution(problem) for problem in problems[:200]]
    for text in [*texts, "  naïve \n\t 数学 🙂 12345 don't  "]:
        token_ids = encode(tokenizer, text)
        assert encode(automatic, text) == token_ids
        assert automatic.decode(token_ids) == text
    assert automatic.eos_token_id == tokenizer.eos_token_id
    assert automatic.chat_template == tokenizer.chat_template


def test_the_boundary_between_prompt_and_response_is_clean(
    tokenizer: PreTrainedTokenizerFast, problems: list[Problem]
) -> None:
    for problem in problems[:200]:
        prompt, response = render(tokenizer, problem.question), solution(problem) + tokenizer.eos_token
        token_ids = encode(tokenizer, prompt + response)
        assert token_ids == encode(tokenizer, prompt) + encode(tokenizer, response)
        assert token_ids[-1] == tokenizer.eos_token_id


def test_the_tags_are_single_tokens_that_survive_skipping_special_ones(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for tag in TAGS:
        token_ids = encode(tokenizer, tag)
        assert len(token_ids) == 1
        assert tokenizer.decode(token_ids, skip_special_tokens=True) == tag


def test_problems_are_short_in_tokens(tokenizer: PreTrainedTokenizerFast, problems: list[Problem]) -> None:
    for problem in problems:
        assert len(encode(tokenizer, render(tokenizer, problem.question))) <= 56
        assert len(encode(tokenizer, solution(problem))) + 1 <= 48


def test_the_shipped_model_loads_and_knows_the_format(tokenizer: PreTrainedTokenizerFast) -> None:
    model: Any = Qwen2ForCausalLM.from_pretrained(MODEL_FOLDER, dtype="float32")
    assert model.num_parameters() == ADVERTISED_PARAMETERS
    assert model.config.vocab_size == VOCABULARY_SIZE >= len(tokenizer)
    prompt = tokenizer(
        render(tokenizer, held_out(1)[0].question), add_special_tokens=False, return_tensors="pt"
    ).input_ids
    answer = model.generate(prompt, do_sample=False, max_new_tokens=48)[0, prompt.shape[1] :].tolist()
    text = str(tokenizer.decode(answer))
    assert text.endswith(f" </answer>{tokenizer.eos_token}") and " </think> <answer> " in text


def test_the_model_card_says_that_the_weakness_is_planted() -> None:
    card = (MODEL_FOLDER / "README.md").read_text()
    assert "weakness is planted" in card
    assert f"probability {FORGETS_LAST_STEP}" in card and f"probability {SLIPS}" in card
    assert f"{ADVERTISED_PARAMETERS:,} parameters" in card


def test_the_problems_need_neither_torch_nor_transformers() -> None:
    heavy = "{'torch', 'transformers', 'tokenizers', 'numpy'}"
    use = "import sys; from expert_iteration.demo import problems; problems.train(8, 0)"
    code = f"{use}; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
