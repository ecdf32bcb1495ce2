"""Checked rows to prompts: what the model is given, to the letter, and in which order."""

import operator
import re
import time
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expert_iteration.config import (
    ConfigError,
    EvalConfig,
    Member,
    ModelConfig,
    RationalisationConfig,
    RunConfig,
)
from expert_iteration.data.order import Deal
from expert_iteration.data.readers import Example
from expert_iteration.data.rendering import TEMPLATES, Renderer
from expert_iteration.grading import STYLES
from expert_iteration.prompts import PromptOrder, PromptSet, load_data
from expert_iteration.tokenizer import load_tokenizer, resolve_model
from expert_iteration.types import Prompt
from tests.data import SHARED, dataset, run_config, sums, write
from tests.test_config import composed, options

COMPUTE = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
QUESTION = "Tom has {n} eggs, {question} and 1 more?"
WORKED = Example(QUESTION, "999", "998+1=999")

R1_ZERO = (
    "A conversation between User and Assistant. The User asks a question, and the Assistant solves it. The "
    "Assistant first thinks about the reasoning process in the mind and then provides the User with the "
    "answer. The reasoning process is enclosed within <think> </think> and answer is enclosed within "
    "<answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> answer "
    f"here </answer>.\nUser: {QUESTION}\nAssistant: <think>"
)
BOXED_CHAT = (
    "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
    f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)
ANSWERS = ("7", "14", "300", "66", "12", "20", "108", "24")
GOLDEN = {
    "r1_zero": (R1_ZERO, " 998+1=999 </think> <answer> 999 </answer>"),
    "question_only": (QUESTION, " 998+1=999\nThe answer is \\boxed{999}."),
    "boxed_chat": (BOXED_CHAT, "998+1=999\nThe answer is \\boxed{999}."),
    "demo": (
        f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n<think>",
        " 998+1=999 </think> <answer> 999 </answer>",
    ),
    "instruction": (f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n", None),
}
"""Prompt -> what the model is given, and how a worked response goes on."""


@pytest.fixture(scope="module")
def tokenizer():
    """The demo's: it has a chat template, and every byte has a token."""
    return load_tokenizer(resolve_model(RunConfig(model=ModelConfig(path="demo"))).model)


def shipped(name: str, tokenizer, **keys) -> Renderer:
    prompt = replace(composed("task=gsm8k", f"task/prompt={name}").task.prompt, **keys)
    return Renderer(Member("task", "own", dataset(prompt=prompt)), tokenizer)


def renderer(tokenizer, **keys) -> Renderer:
    return Renderer(Member("task", "own", dataset(**keys)), tokenizer)


# ---------------------------------------------------------------- what the model is given


@pytest.mark.parametrize("name", GOLDEN)
def test_each_prompt_renders_exactly(name, tokenizer):
    render, (text, response) = shipped(name, tokenizer), GOLDEN[name]
    assert render.prompt(QUESTION) == text
    assert render.response(WORKED, text) == response


def test_the_worked_examples_of_gsm8k_cot_render_exactly(tokenizer):
    render = shipped("gsm8k_cot", tokenizer)
    text = render.prompt(QUESTION)
    blocks = text.split("\n\n")
    assert len(blocks) == 9
    assert blocks[0] == (
        "Question: Maya bakes 3 trays of 12 muffins. She gives 8 muffins to her neighbours and packs the "
        "rest into boxes of 4. How many boxes does she fill?\n"
        "Answer: Maya bakes 3 * 12 = 36 muffins. After giving away 8 she has 36 - 8 = 28 muffins. They fill "
        "28 / 4 = 7 boxes.\n"
        "#### 7"
    )
    assert tuple(block.partition("\n#### ")[2] for block in blocks[:8]) == ANSWERS
    assert all(block.startswith("Question: ") and block.count("\nAnswer: ") == 1 for block in blocks[:8])
    assert blocks[8] == f"Question: {QUESTION}\nAnswer:"
    assert render.response(WORKED, text) == " 998+1=999\n#### 999"


def test_the_arithmetic_of_the_worked_examples_is_right():
    text = (TEMPLATES / "gsm8k_cot.txt").read_text()
    shown = re.findall(r"(\d[\d.]*(?: [-+*/] \d[\d.]*)+) = (\d[\d.]*\d|\d)", text)
    assert len(shown) >= 20
    for left, right in shown:
        numbers, signs = left.split()[::2], left.split()[1::2]
        value = Fraction(numbers[0])
        for sign, number in zip(signs, numbers[1:], strict=True):
            value = COMPUTE[sign](value, Fraction(number))
        assert value == Fraction(right), left


@pytest.mark.parametrize("name", options("task/prompt"))
def test_each_prompt_survives_the_tokenizer(name, tokenizer):
    text = shipped(name, tokenizer).prompt(QUESTION + " é 数\n\t½")
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_every_shipped_prompt_has_a_golden_text():
    assert set(options("task/prompt")) == {*GOLDEN, "gsm8k_cot"}


@pytest.mark.parametrize("name", [name for name in options("task/prompt") if name != "instruction"])
def test_a_worked_response_that_ran_into_the_stop_string_is_still_judged_correct(name, tokenizer):
    prompt = composed("task=gsm8k", f"task/prompt={name}").task.prompt
    response = shipped(name, tokenizer).response(WORKED, "") or ""
    for stop in prompt.stop:
        # the stop string stays part of the response; r1_zero's is its own end
        text = response if stop in response else f"{response}\n{stop}"
        assert STYLES[prompt.style](text).answer == "999"


def test_chosen_prompts_and_tasks_combine():
    for task in ("gsm8k", "math", "jsonl"):
        chosen = composed("task/prompt=boxed_chat", f"task={task}").task
        assert (chosen.name, chosen.prompt.style, chosen.prompt.chat) == (task, "boxed", True)


def test_a_member_of_a_mixture_may_have_a_prompt_of_its_own():
    members = composed("task=gsm8k_math", "task/prompt@task.members.math.prompt=boxed_chat").task.members
    assert [member.prompt.style for member in members.values()] == ["r1_zero", "boxed"]


def test_ones_own_template_is_a_text_file_whose_last_newline_does_not_count(tmp_path, tokenizer):
    own = tmp_path / "own.txt"
    own.write_bytes(b"\xef\xbb\xbfQ: {question}\r\nA:\r\n")
    assert renderer(tokenizer, template=str(own)).prompt("{question}?") == "Q: {question}?\nA:"


@pytest.mark.parametrize(
    ("content", "words"), [(b"no slot", "has no {question}"), (b"{question}\xff", "is not UTF-8 (byte 11)")]
)
def test_a_template_that_cannot_work_is_refused(tmp_path, tokenizer, content, words):
    own = tmp_path / "own.txt"
    own.write_bytes(content)
    with pytest.raises(ConfigError) as refusal:
        renderer(tokenizer, template=str(own))
    assert words in str(refusal.value)


def test_an_unknown_template_names_the_known_ones(tokenizer):
    with pytest.raises(ConfigError, match=r"task\.prompt\.template \(nope\) is no text file .*r1_zero"):
        renderer(tokenizer, template="nope")


def test_a_chat_needs_a_chat_template(tiny_model):
    bare = load_tokenizer(ModelConfig(path=str(tiny_model)))
    with pytest.raises(ConfigError, match=r"task\.prompt\.chat is true"):
        renderer(bare, chat=True)


# ---------------------------------------------------------------- worked examples


@pytest.fixture
def few_shot(tmp_path) -> str:
    rows = [
        {"question": "1 and {question}?", "gold": 2, "reasoning": "1+1=2"},
        {"question": "3 and 1?", "gold": "4"},
    ]
    return f"{write(tmp_path, shown=rows)}/shown.jsonl"


def test_worked_examples_stand_before_the_question_and_the_preamble_stands_once(tokenizer, few_shot):
    opening, _, turn = R1_ZERO.partition("\n")
    ask = turn.replace(QUESTION, "{}").format
    assert shipped("r1_zero", tokenizer, few_shot=few_shot).prompt(QUESTION) == (
        f"{opening}\n"
        + ask("1 and {question}?")
        + " 1+1=2 </think> <answer> 2 </answer>\n\n"
        + ask("3 and 1?")
        + " </think> <answer> 4 </answer>\n\n"
        + ask(QUESTION)
    )


def test_a_preamble_ends_at_the_last_blank_line_before_the_question(tmp_path, tokenizer, few_shot):
    own = tmp_path / "own.txt"
    own.write_text("Add.\n\nQ:\n{question}\nA:")
    text = renderer(tokenizer, template=str(own), style="gsm8k", few_shot=few_shot).prompt("5 and 1?")
    assert text.split("\n\n") == [
        "Add.",
        "Q:\n1 and {question}?\nA: 1+1=2\n#### 2",
        "Q:\n3 and 1?\nA: #### 4",
        "Q:\n5 and 1?\nA:",
    ]


def test_in_a_chat_worked_examples_are_earlier_turns(tokenizer, few_shot):
    text = shipped("demo", tokenizer, few_shot=few_shot, system="Add.").prompt(QUESTION)
    assert text == (
        "<|im_start|>system\nAdd.<|im_end|>\n"
        "<|im_start|>user\n1 and {question}?<|im_end|>\n"
        "<|im_start|>assistant\n<think> 1+1=2 </think> <answer> 2 </answer><|im_end|>\n"
        "<|im_start|>user\n3 and 1?<|im_end|>\n"
        "<|im_start|>assistant\n<think> </think> <answer> 4 </answer><|im_end|>\n"
        f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n<think>"
    )


def test_a_bad_worked_example_is_named_by_file_and_line(tmp_path, tokenizer):
    write(tmp_path, shown=[*sums(1), {"question": "q"}])
    with pytest.raises(
        ConfigError, match=r"few_shot: .*shown\.jsonl:2: field 'gold' is missing.*; mend the row"
    ):
        renderer(tokenizer, few_shot=f"{tmp_path}/shown.jsonl")
    with pytest.raises(ConfigError, match=r"task\.prompt\.few_shot \(nowhere\.jsonl\) is no"):
        renderer(tokenizer, few_shot="nowhere.jsonl")


# ---------------------------------------------------------------- prompts of a run


def loaded(tokenizer, limit: int | None = None, **task):
    config = run_config(**task)
    return load_data(replace(config, eval=EvalConfig(limit=limit)), tokenizer)


def test_a_row_becomes_a_prompt_with_all_that_is_known_of_it(tmp_path, tokenizer):
    rows = sums(1, reasoning="1+1=2", level="Level 2", subject="Sums")
    data = loaded(tokenizer, path=write(tmp_path, train=rows, test=sums(2)), stop=["</answer>"])
    (prompt,) = data.train.prompts
    text = "What is 1 and 1?"
    ids = tuple(tokenizer.encode(text))
    response = " 1+1=2 </think> <answer> 2 </answer>"
    assert prompt == Prompt(
        *(0, text, "2", text, ids, "r1_zero", "jsonl", ("</answer>",), "level_2", "Sums"),
        demonstration=response,
    )


def test_a_hint_stands_after_the_question_of_a_second_prompt_only(tmp_path, tokenizer):
    config = run_config(path=write(tmp_path, train=sums(1), test=sums(2)))
    (plain,) = load_data(config, tokenizer).train.prompts
    config = replace(config, rationalisation=RationalisationConfig(True, " (Hint: {gold}.)"))
    (prompt,) = load_data(config, tokenizer).train.prompts
    assert plain.hinted_token_ids is None
    assert replace(prompt, hinted_token_ids=None) == plain
    assert tokenizer.decode(prompt.hinted_token_ids) == plain.text.replace("?", "? (Hint: 2.)")


def test_prompts_that_do_not_fit_are_skipped_and_counted(tmp_path, tokenizer):
    rows = [*sums(1), {"question": "long " * 200, "gold": "1"}, *sums(2)]
    data = loaded(tokenizer, path=write(tmp_path, train=rows, test=sums(9)))
    assert [prompt.id for prompt in data.train.prompts] == [0, 2]
    assert data.report.as_json()["parts"][0]["prompts_too_long"] == 1
    assert data.report.line.startswith("data: jsonl train 2 of 3 rows, 1 too long;")


def test_the_books_count_what_was_left_out(tmp_path, tokenizer):
    rows = [*sums(1), {"question": "long " * 200, "gold": "1"}, {}, *sums(2)]
    data = loaded(tokenizer, path=write(tmp_path, train=rows, test=[*sums(9), *sums(9)]))
    assert data.left_out == Counter(
        train_rows=4,
        train_rows_dropped=1,
        train_prompts_too_long=1,
        evaluation_rows=2,
        evaluation_rows_dropped=1,
    )


def test_an_evaluation_uses_the_first_questions_but_no_other_may_be_trained_on(tmp_path, tokenizer):
    path = write(tmp_path, train=sums(1), test=sums(*range(5, 9)))
    data = loaded(tokenizer, limit=2, path=path)
    assert [prompt.id for prompt in data.held_out.prompts] == [0, 1]
    write(tmp_path, train=sums(8))
    with pytest.raises(ConfigError, match="asks 1 of the training questions"):
        loaded(tokenizer, limit=2, path=path)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ([], ["no train prompt is left", "train.jsonl (task): 0 rows"]),
        ([{}], ["1 rows, 1 cannot be used (", "train.jsonl:1: field 'question'"]),
        ([{"question": "long " * 200, "gold": "1"}], ["1 prompts are longer than model.max_length (200)"]),
    ],
)
def test_a_run_without_prompts_is_refused_with_the_reason(tmp_path, tokenizer, train, words):
    with pytest.raises(ConfigError) as refusal:
        loaded(tokenizer, path=write(tmp_path, train=train, test=sums(1)))
    for word in words:
        assert word in str(refusal.value)


def test_too_few_rows_to_hold_any_out_are_refused(tmp_path, tokenizer):
    with pytest.raises(ConfigError, match=r"no evaluation prompt is left .*held_out \(0\.001\)"):
        loaded(tokenizer, path=write(tmp_path, train=sums(1)), evaluation=None, held_out=0.001)


def test_the_hash_is_that_of_the_rows_that_are_asked(tmp_path, tokenizer):
    path = write(tmp_path, train=sums(1, 2), test=sums(3, 4))
    first = loaded(tokenizer, path=path).hash
    same, fewer, more = (loaded(tokenizer, limit, path=path).hash for limit in (2, 1, 3))
    assert first == same == more == loaded(tokenizer, path=path, prefix="<think>", style="boxed").hash
    assert fewer != first
    for changed in (sums(2, 1), sums(1), [*sums(1), *sums(2, gold="4")], sums(1, 2, reasoning="So.")):
        write(tmp_path, train=changed)
        assert loaded(tokenizer, path=path).hash != first


def test_a_bad_row_between_good_ones_changes_no_id(tmp_path, tokenizer):
    data = loaded(tokenizer, path=write(tmp_path, train=[*sums(1), {}, *sums(2)], test=sums(3)))
    assert [prompt.id for prompt in data.train.prompts] == [0, 2]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published datasets are not at hand")
@pytest.mark.parametrize("task", ["gsm8k", "math"])
def test_a_published_dataset_is_read_checked_and_tokenised_in_seconds(task, tokenizer):
    config = composed(f"task={task}", f"task.path={SHARED / task}", "eval.limit=null")
    start = time.monotonic()
    load_data(config, tokenizer)
    assert time.monotonic() - start < 20


# ---------------------------------------------------------------- mixtures


@pytest.fixture
def mixture(tmp_path):
    """10 and 4 training rows, of which one is bad; 2 and 3 evaluation rows; visited 3 to 1."""
    one = write(tmp_path / "one", train=sums(*range(10)), test=sums(100, 101))
    other = write(tmp_path / "other", train=[*sums(20, 21), {}, *sums(22)], test=sums(200, 201, 202))
    return {"one": dataset(path=one, weight=3.0), "other": dataset(path=other, style="boxed")}


def test_prompts_of_a_mixture_know_their_task_and_style_and_their_ids_count_on(tokenizer, mixture):
    data = loaded(tokenizer, members=mixture)
    assert [prompt.id for prompt in data.train.prompts] == [*range(10), 10, 11, 13]
    assert [(prompt.id, prompt.task) for prompt in data.held_out.prompts] == [
        (0, "one"),
        (1, "one"),
        (2, "other"),
        (3, "other"),
        (4, "other"),
    ]
    assert {prompt.task: prompt.style for prompt in data.train.prompts} == {
        "one": "r1_zero",
        "other": "boxed",
    }


def test_the_evaluation_of_a_mixture_has_the_first_questions_of_each_member(tokenizer, mixture):
    assert [prompt.id for prompt in loaded(tokenizer, limit=1, members=mixture).held_out.prompts] == [0, 2]


def test_a_mixture_is_visited_by_weight_and_each_member_in_passes_of_its_own(tokenizer, mixture):
    order = PromptOrder(loaded(tokenizer, members=mixture).train, 4, seed=0)
    visits = [order.ticket(group_id).prompt for group_id in range(4000)]
    assert Counter(prompt.task for prompt in visits) == {"one": 3000, "other": 1000}
    for group_id in range(0, 4000, 4):
        assert Counter(prompt.task for prompt in visits[group_id : group_id + 4]) == {"one": 3, "other": 1}
    own = [prompt.id for prompt in visits if prompt.task == "one"]
    assert all(sorted(own[start : start + 10]) == list(range(10)) for start in range(0, 3000, 10))
    assert own[:10] != own[10:20]


def test_the_order_of_a_mixture_is_a_function_of_seed_and_visit_alone(tokenizer, mixture):
    prompts = loaded(tokenizer, members=mixture).train
    straight = [PromptOrder(prompts, 4, seed=1).ticket(group_id) for group_id in range(2500)]
    resumed = PromptOrder(prompts, 4, seed=1)
    assert [resumed.ticket(group_id) for group_id in (2499, 13, 1042)] == [
        straight[group_id] for group_id in (2499, 13, 1042)
    ]


def test_a_member_of_a_mixture_that_has_nothing_to_ask_is_refused(tmp_path, tokenizer, mixture):
    mixture["other"].path = write(tmp_path / "empty", train=[], test=sums(300))
    with pytest.raises(ConfigError, match=r"no train prompt is left of .*\(task\.members\.other\)"):
        loaded(tokenizer, members=mixture)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=6), st.integers(0, 5000))
def test_a_deal_numbers_the_visits_of_each_member_without_gaps(weights, start):
    deal = Deal(weights)
    seen: dict[int, list[int]] = {}
    for visit in range(start, start + 2500):
        member, number = deal.turn(visit)
        seen.setdefault(member, []).append(number)
    assert len(seen) == len(weights)
    for own in seen.values():
        assert own == list(range(own[0], own[0] + len(own)))


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=6), st.integers(1, 3000))
def test_after_any_number_of_visits_each_member_is_within_two_of_its_share(weights, visits):
    deal = Deal(weights)
    dealt = Counter(deal.turn(visit)[0] for visit in range(visits))
    for member, weight in enumerate(weights):
        share = visits * weight / sum(weights)
        assert abs(dealt[member] - share) <= 2 + visits / 1000 * len(weights)


# ---------------------------------------------------------------- the order of one dataset


def prompt_set(count: int) -> PromptSet:
    return PromptSet(tuple(Prompt(i, f"q{i}", "1", f"q{i}", (i,), "boxed") for i in range(count)), count, 0)


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
