"""Groups that teach nothing: another prompt takes their place, or the right answer helps as a hint."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expert_iteration.algorithms import answers_at_once
from expert_iteration.archive import Archive
from expert_iteration.choices import Duplicates, Prefer, PromptStrategy
from expert_iteration.collector import Collector
from expert_iteration.config import (
    AlgorithmConfig,
    BufferConfig,
    ModelConfig,
    PromptsConfig,
    RationalisationConfig,
    RewardConfig,
    RunConfig,
    SamplingConfig,
    SelectionConfig,
)
from expert_iteration.engine import Request
from expert_iteration.second_chances import hinted_positions
from expert_iteration.tokenizer import load_tokenizer, resolve_model
from expert_iteration.types import Finish, Prompt, Rollout, Ticket

RIGHT, WRONG = " 1+1=2 </think> <answer> 2 </answer>", " hm </think> <answer> 3 </answer>"
TELLTALE = " as the hint says </think> <answer> 2 </answer>"
HINT = " (Hint: the answer is {gold}.)"


class ScriptedEngine:
    """Answers each prompt, named by its first token, as `script` says: (prompt, n) -> texts."""

    version = 3

    def __init__(self, tokenizer, script: Callable[[int], list[str]]):
        self._tokenizer, self._script = tokenizer, script
        self.requests: list[Request] = []

    def submit(self, requests):
        self.requests += requests
        return [self._answered(request) for request in requests]

    def _answered(self, request):
        future: Future = Future()
        rollouts = []
        for i, text in enumerate(self._script(request.prompt[0])):
            ids = tuple(self._tokenizer.encode(text, add_special_tokens=False))
            rollouts.append(Rollout(i, ids, (-0.1,) * len(ids), text, Finish.STOP, 3, 3))
        future.set_result(tuple(rollouts))
        return future

    def close(self):
        pass


def run_config(name: str, **changes) -> RunConfig:
    values = {
        "prompts_per_iteration": 4,
        "rollouts_per_prompt": 2,
        "batch_size": 2,
        "iterations": 1,
        "algorithm": AlgorithmConfig(name=name),
        "sampling": SamplingConfig(max_tokens=40, refill=2),
        "rationalisation": RationalisationConfig(enabled=name == "star", hint=HINT, max_share=1.0),
        "selection": SelectionConfig(top_k=1 if name == "star" else None),
        "buffer": BufferConfig(capacity=100),
        "model": ModelConfig(path="demo", max_length=128),
    }
    return resolve_model(RunConfig(**values | changes))


def prompt(first: int, **changes) -> Prompt:
    return Prompt(first, f"q{first}", "2", f"q{first}", (first, 5, 6), "r1_zero", **changes)


def collected(config: RunConfig, folder: Path, tickets: list[Ticket], script: dict[int, list[str]]):
    archive, tokenizer = Archive(config, folder), load_tokenizer(config.model)
    engine = ScriptedEngine(tokenizer, script.__getitem__)
    collector = Collector(config, engine, tokenizer, archive, None)
    collector.collect(tickets)
    collector.close()
    return archive, engine, tokenizer


def kept_prompts(archive: Archive) -> list[int]:
    return [int(row["prompt_id"]) for row in archive.draw(0, 0, 1)]


# --- more answers ---

PROMPTS, ANSWERS = 4, 4


class PatientEngine(ScriptedEngine):
    """Answers a prompt with as many texts as it is asked for, the next ones each time."""

    def __init__(self, tokenizer, script):
        super().__init__(tokenizer, self._next)
        self._texts, self._asked = script, Counter[int]()
        self._wanted = 0

    def _answered(self, request):
        self._wanted = request.n
        return super()._answered(request)

    def _next(self, prompt):
        first = self._asked[prompt]
        self._asked[prompt] += self._wanted
        return self._texts(prompt)[first : first + self._wanted]


def asked_in_turns(folder, at_once, texts, top_k=1, duplicates=Duplicates.text):
    config = run_config(
        "expert_iteration",
        rollouts_per_prompt=ANSWERS,
        sampling=SamplingConfig(max_tokens=40, at_once=at_once),
        selection=SelectionConfig(top_k=top_k, duplicates=duplicates),
    )
    archive, tokenizer = Archive(config, folder), load_tokenizer(config.model)
    engine = PatientEngine(tokenizer, texts.__getitem__)
    collector = Collector(config, engine, tokenizer, archive, None)
    collector.collect([Ticket(i, 1, prompt(i)) for i in range(len(texts))])
    collector.close()
    return archive.snapshot().totals, engine.requests


def test_a_prompt_is_asked_no_more_once_enough_answers_are_right(tmp_path):
    texts = [[RIGHT, WRONG, WRONG, WRONG], [WRONG, WRONG, RIGHT, WRONG], [WRONG] * 4]
    totals, requests = asked_in_turns(tmp_path, 1, texts)
    assert Counter(request.prompt[0] for request in requests) == {0: 1, 1: 3, 2: 4}
    assert (totals["groups"], totals["rollouts"], totals["correct"], totals["kept"]) == (3, 8, 2, 2)
    for number in range(3):
        seeds = [request.seed for request in requests if request.prompt[0] == number]
        assert seeds == list(range(seeds[0], seeds[0] + len(seeds))), "those of one request for all"


@settings(max_examples=60, deadline=None)
@given(
    right=st.lists(st.lists(st.integers(0, 2), min_size=ANSWERS, max_size=ANSWERS), min_size=1, max_size=3),
    at_once=st.integers(1, 3),
    top_k=st.integers(1, 3),
    duplicates=st.sampled_from(Duplicates),
)
def test_as_many_are_kept_as_if_all_were_sampled(right, at_once, top_k, duplicates):
    """0 is a wrong answer, 1 and 2 are right ones that differ."""
    said = {0: WRONG, 1: RIGHT, 2: " 2*1=2 </think> <answer> 2 </answer>"}
    texts = [[said[one] for one in group] for group in right]
    with TemporaryDirectory() as some, TemporaryDirectory() as every:
        few, _ = asked_in_turns(Path(some), at_once, texts, top_k, duplicates)
        all_, _ = asked_in_turns(Path(every), None, texts, top_k, duplicates)
    assert few["kept"] == all_["kept"]
    assert few["rollouts"] <= all_["rollouts"] == ANSWERS * len(texts)


# --- another prompt ---


def test_a_group_without_a_signal_gives_its_place_to_another_prompt(tmp_path):
    ticket = Ticket(0, 1, prompt(10), spares=(prompt(11), prompt(12)))
    script = {10: [WRONG, WRONG], 11: [RIGHT, RIGHT], 12: [RIGHT, WRONG]}
    archive, engine, _ = collected(run_config("grpo"), tmp_path, [ticket], script)
    assert [request.prompt[0] for request in engine.requests] == [10, 11, 12]
    assert kept_prompts(archive) == [12, 12]
    totals = archive.snapshot().totals
    assert (totals["groups"], totals["refilled"], totals["no_signal"], totals["kept"]) == (1, 2, 4, 2)
    assert totals["rollouts"] == 6
    assert sorted(archive.ledger().records) == [10, 11, 12]


def test_refilling_ends_with_the_spares(tmp_path):
    ticket = Ticket(0, 1, prompt(10), spares=(prompt(11),))
    script = {10: [WRONG, WRONG], 11: [WRONG, WRONG]}
    archive, engine, _ = collected(run_config("grpo"), tmp_path, [ticket], script)
    assert len(engine.requests) == 2
    totals = archive.snapshot().totals
    assert (totals["groups"], totals["refilled"], totals["no_signal"], totals["kept"]) == (1, 1, 4, 0)
    assert archive.missing([0]) == []


def test_methods_that_imitate_refill_nothing(tmp_path):
    ticket = Ticket(0, 1, prompt(10), spares=(prompt(11),))
    _, engine, _ = collected(run_config("rejection"), tmp_path, [ticket], {10: [RIGHT, RIGHT]})
    assert len(engine.requests) == 1


# --- a hint ---


def test_an_unsolved_prompt_is_asked_again_with_the_hint_and_learned_without_it(tmp_path):
    config = run_config("star")
    tokenizer = load_tokenizer(config.model)
    hinted = (99, *tokenizer.encode(HINT.replace("{gold}", "2"), add_special_tokens=False))
    ticket = Ticket(0, 1, prompt(10, hinted_token_ids=hinted))
    script = {10: [WRONG, WRONG], 99: [TELLTALE, RIGHT]}
    archive, engine, tokenizer = collected(config, tmp_path, [ticket], script)
    assert [request.prompt for request in engine.requests] == [(10, 5, 6), hinted]
    [row] = archive.draw(0, 0, 1)
    assert row["tokens", "full"].tolist() == [10, 5, 6, *tokenizer.encode(RIGHT, add_special_tokens=False)]
    totals = archive.snapshot().totals
    assert (totals["rollouts"], totals["correct"], totals["hinted"], totals["rationalised"]) == (2, 0, 2, 1)
    record = archive.ledger().records[10]
    assert record.rationalised and not record.solved


@pytest.mark.parametrize("betrays", [" (HINT: 2) </think> <answer> 2 </answer>", TELLTALE])
def test_no_text_of_the_hint_reaches_a_training_row(tmp_path, betrays):
    config = run_config("star")
    hints = {i: (90 + i, 1) for i in range(4)}
    tickets = [Ticket(i, 1, prompt(10 + i, hinted_token_ids=hints[i])) for i in range(4)]
    script = {10 + i: [WRONG, WRONG] for i in range(4)} | {90 + i: [betrays, RIGHT] for i in range(4)}
    archive, _, tokenizer = collected(config, tmp_path, tickets, script)
    rows = [*archive.draw(0, 0, 1), *archive.draw(1, 0, 1)]
    assert len(rows) == 4
    for row in rows:
        ids = row["tokens", "full"].tolist()
        assert "hint" not in tokenizer.decode(ids).casefold()
        assert not set(ids[:3]) & {90, 91, 92, 93}


def test_a_solved_prompt_needs_no_hint(tmp_path):
    ticket = Ticket(0, 1, prompt(10, hinted_token_ids=(99, 1)))
    _, engine, _ = collected(run_config("star"), tmp_path, [ticket], {10: [RIGHT, WRONG]})
    assert len(engine.requests) == 1


def test_a_prompt_that_the_hint_does_not_solve_is_given_up(tmp_path):
    ticket = Ticket(0, 1, prompt(10, hinted_token_ids=(99, 1)))
    archive, engine, _ = collected(run_config("star"), tmp_path, [ticket], {10: [WRONG] * 2, 99: [WRONG] * 2})
    assert len(engine.requests) == 2 and archive.snapshot().live == 0


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_no_more_than_its_share_of_an_iteration_is_asked_again(tmp_path, share):
    config = run_config("star")
    config = replace(config, rationalisation=replace(config.rationalisation, max_share=share))
    tickets = [Ticket(i, 1, prompt(10 + i, hinted_token_ids=(99, 1))) for i in range(4)]
    script = {10 + i: [WRONG, WRONG] for i in range(4)} | {99: [RIGHT, RIGHT]}
    _, engine, _ = collected(config, tmp_path, tickets, script)
    assert len(engine.requests) == 4 + 4 * share


def test_the_lot_falls_anew_in_every_iteration():
    drawn = {hinted_positions(0, iteration, 100, 25) for iteration in range(20)}
    assert len(drawn) == 20 and {len(one) for one in drawn} == {25}


@pytest.mark.parametrize(
    ("answers", "changes", "at_once"),
    [
        (4, {}, 1),
        (64, {}, 16),
        (6, {}, 2),
        (4, {"sampling": SamplingConfig(max_tokens=40, at_once=3)}, 3),
        (4, {"prompts": PromptsConfig()}, 4),
        (4, {"selection": SelectionConfig(top_k=None)}, 4),
        (4, {"selection": SelectionConfig(top_k=1, prefer=Prefer.shortest)}, 4),
        (4, {"reward": RewardConfig(brevity=0.1)}, 4),
        (4, {"algorithm": AlgorithmConfig(name="grpo")}, 4),
    ],
)
def test_the_frontier_asks_in_turns_where_the_first_right_answers_are_all_that_count(
    answers, changes, at_once
):
    values = {
        "rollouts_per_prompt": answers,
        "sampling": SamplingConfig(max_tokens=40),
        "selection": SelectionConfig(top_k=1),
        "prompts": PromptsConfig(strategy=PromptStrategy.frontier),
    }
    assert answers_at_once(run_config("expert_iteration", **values | changes)) == at_once
