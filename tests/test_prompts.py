"""Datasets to prompts."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from expert_iteration.config import ConfigError, ModelConfig, RunConfig, SamplingConfig, TaskConfig
from expert_iteration.prompts import PromptOrder, PromptSet, load_data, load_prompts
from expert_iteration.tokenizer import load_tokenizer, resolve_model
from expert_iteration.types import Prompt

GSM8K = [
    {
        "question": f"Tom has {n} {{eggs}} and 1 more?",
        "answer": f"{n}+1=<<{n}+1={n + 1}>>{n + 1}\n#### {n + 1:,}",
    }
    for n in range(998, 1004)
]
MATH = [
    {"problem": "What is half?", "solution": "So $\\boxed{\\frac{1}{2}}$.", "level": "Level 3"},
    {"problem": "What is two?", "solution": "Clearly.", "answer": "2", "level": 5},
]


@pytest.fixture
def tokenizer(tiny_model):
    return load_tokenizer(ModelConfig(path=str(tiny_model)))


def write(folder: Path, **files: list) -> str:
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


def run_config(**task) -> RunConfig:
    defaults = {"name": "gsm8k", "template": "question_only", "style": "r1_zero", "max_tokens": 16}
    return RunConfig(
        task=TaskConfig(**defaults | task),
        sampling=SamplingConfig(max_tokens=16),
        model=ModelConfig(max_length=200),
    )


def test_gsm8k_rows_become_prompts_with_gold_and_demonstration(tmp_path, tokenizer):
    config = run_config(path=write(tmp_path, train=GSM8K))
    first = load_prompts(config, tokenizer, "train", None).prompts[0]
    assert first.question == first.text == "Tom has 998 {eggs} and 1 more?"
    assert first.gold == "999"
    assert first.demonstration == " 998+1=999 </think> <answer> 999 </answer>"
    assert tokenizer.decode(first.token_ids) == first.text


def test_thousands_separators_leave_the_gold(tmp_path, tokenizer):
    config = run_config(path=write(tmp_path, train=GSM8K))
    assert load_prompts(config, tokenizer, "train", None).prompts[2].gold == "1001"


def test_math_takes_the_gold_from_the_answer_or_the_last_box(tmp_path, tokenizer):
    config = run_config(name="math", path=write(tmp_path, train4500=MATH))
    prompts = load_prompts(config, tokenizer, "train", None).prompts
    assert [prompt.gold for prompt in prompts] == ["\\frac{1}{2}", "2"]
    assert [prompt.level for prompt in prompts] == ["level_3", "level_5"]


def test_the_r1_zero_template_ends_inside_the_thought(tmp_path, tokenizer):
    config = run_config(path=write(tmp_path, train=GSM8K), template="r1_zero")
    config = replace(config, model=replace(config.model, max_length=2000))
    text = load_prompts(config, tokenizer, "train", 1).prompts[0].text
    assert text.startswith("A conversation between User and Assistant.")
    assert text.endswith("User: Tom has 998 {eggs} and 1 more?\nAssistant: <think>")


def test_the_demo_prompt_is_a_chat_turn_with_the_thought_opened():
    demo = resolve_model(RunConfig(model=ModelConfig(path="demo", max_length=256)))
    tokenizer = load_tokenizer(demo.model)
    task = run_config(name="demo", chat=True, prefix="<think>").task
    prompt = load_prompts(replace(run_config(), task=task), tokenizer, "evaluation", 3).prompts[0]
    assert prompt.text.endswith("<|im_end|>\n<|im_start|>assistant\n<think>")
    assert prompt.question in prompt.text


def test_prompts_that_do_not_fit_are_skipped_and_counted(tmp_path, tokenizer):
    rows = [*GSM8K, {"question": "long " * 100, "answer": "#### 1"}]
    prompts = load_prompts(run_config(path=write(tmp_path, train=rows)), tokenizer, "train", None)
    assert (len(prompts), prompts.rows, prompts.too_long) == (6, 7, 1)


def test_a_limit_counts_rows_from_the_start(tmp_path, tokenizer):
    prompts = load_prompts(run_config(path=write(tmp_path, train=GSM8K)), tokenizer, "train", 4)
    assert [prompt.id for prompt in prompts.prompts] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "q"}, "train.jsonl:7: field 'answer' is None"),
        ({"question": " ", "answer": "#### 1"}, "train.jsonl:7: field 'question'"),
        ({"question": "q", "answer": "1"}, "train.jsonl:7: the answer has no '####'"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, tokenizer, row, words):
    config = run_config(path=write(tmp_path, train=[*GSM8K, row]))
    with pytest.raises(ConfigError, match=words):
        load_prompts(config, tokenizer, "train", None)


def test_a_missing_file_is_named_with_what_is_there(tmp_path, tokenizer):
    config = run_config(path=write(tmp_path, other=GSM8K))
    with pytest.raises(ConfigError, match=r"no|0 files for train\*\.jsonl of: other"):
        load_prompts(config, tokenizer, "train", None)


def test_a_question_in_both_splits_is_refused(tmp_path, tokenizer):
    config = run_config(path=write(tmp_path, train=GSM8K, test=GSM8K[3:4]))
    with pytest.raises(ConfigError, match=r"1 training questions .*rows \[3\]"):
        load_data(config, tokenizer)


def test_an_unknown_template_names_the_known_ones(tmp_path, tokenizer):
    config = run_config(path=write(tmp_path, train=GSM8K), template="nope")
    with pytest.raises(ConfigError, match=r"nope\) is not one of .*r1_zero"):
        load_prompts(config, tokenizer, "train", None)


def prompt_set(count: int) -> PromptSet:
    return PromptSet(tuple(Prompt(i, f"q{i}", "1", f"q{i}", (i,)) for i in range(count)), count, 0)


def test_every_pass_visits_every_prompt_once_in_an_order_of_its_own():
    order = PromptOrder(prompt_set(20), groups_per_iteration=7, seed=3)
    visits = [order.ticket(group_id).prompt.id for group_id in range(60)]
    passes = [visits[0:20], visits[20:40], visits[40:60]]
    assert all(Counter(one) == Counter(range(20)) for one in passes)
    assert passes[0] != passes[1] != passes[2]


def test_the_order_is_a_function_of_seed_and_visit_alone():
    straight = PromptOrder(prompt_set(9), 4, seed=1)
    drawn = [straight.ticket(group_id) for group_id in range(30)]
    resumed = PromptOrder(prompt_set(9), 4, seed=1)
    assert [resumed.ticket(group_id) for group_id in (29, 13, 2)] == [drawn[29], drawn[13], drawn[2]]
    other = PromptOrder(prompt_set(9), 4, seed=2)
    assert [other.ticket(group_id).prompt.id for group_id in range(9)] != [t.prompt.id for t in drawn[:9]]


def test_iterations_are_counted_from_one():
    order = PromptOrder(prompt_set(9), groups_per_iteration=4, seed=1)
    assert [order.ticket(group_id).iteration for group_id in (0, 3, 4, 8)] == [1, 1, 2, 3]
