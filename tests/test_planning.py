"""What a run does and keeps, as planned: exact, and held to the code and to real runs."""

import json
import random
from collections import Counter
from itertools import product
from math import prod
from pathlib import Path
from types import SimpleNamespace

import pytest

from expert_iteration.choices import Duplicates
from expert_iteration.config import ConfigError, ModelConfig, RunConfig
from expert_iteration.demo import MODEL_FOLDER
from expert_iteration.planning.measured import odds_of
from expert_iteration.planning.odds import Groups, Odds, right_answers
from expert_iteration.planning.rehearsal import Counts, evenly, is_due, rehearse
from expert_iteration.planning.shapes import read_shape, shape_of
from tests.plans import PUBLISHED, SMALL, composed, shape

REAL_RUNS = [
    (("algorithm=expert_iteration", "epochs=3"), (154, 210, 237, 235), 162),
    (("algorithm=grpo", "epochs=1"), (496, 504, 600, 612), 140),
    (("algorithm=raft", "epochs=1"), (291, 478, 642, 703), 134),
    (("algorithm=rest_em", "epochs=3"), (164, 213, 234, 243), 168),
    (("algorithm=sft", "epochs=3", "batch_size=20"), (256, 256, 256, 256), 156),
]
"""Runs of the demo: what differs from SMALL, answers kept by iteration, optimizer steps taken."""


# --- the size of a model ---


def test_the_parameters_of_the_demo_are_the_elements_of_its_file() -> None:
    with (MODEL_FOLDER / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    tensors = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    assert shape().parameters == sum(map(prod, tensors)) == 854_144
    assert shape().embedding == max(map(prod, tensors))


@pytest.mark.parametrize(("path", "parameters"), PUBLISHED.items())
def test_the_models_of_the_configuration_have_their_published_sizes(path: str, parameters: int) -> None:
    assert shape(path).parameters == parameters


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Llama", {}),
        ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
        ("Mistral", {"head_dim": 24}),
        ("Qwen2", {"tie_word_embeddings": True}),
        ("Qwen3", {}),
        ("Qwen3", {"head_dim": 24, "attention_bias": True}),
    ],
)
def test_the_formula_counts_what_transformers_builds(name: str, options: dict[str, object]) -> None:
    import torch
    import transformers

    sizes = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = getattr(transformers, f"{name}Config")(**sizes, **heads, **options)
    with torch.device("meta"):
        model = getattr(transformers, f"{name}ForCausalLM")(config)
    found = read_shape(config.to_dict())
    assert found is not None
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_a_model_that_is_not_here_is_said_to_be_unknown_and_how_to_fetch_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = shape_of(ModelConfig(path="someone/else"))
    assert found.shape is None and "hf download someone/else config.json" in found.origin
    folder = tmp_path / "models--someone--else" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text((MODEL_FOLDER / "config.json").read_text())
    assert shape_of(ModelConfig(path="someone/else")).shape == shape()


@pytest.mark.parametrize("text", [None, "{", "[]", '{"model_type": "llama"}'])
def test_a_folder_without_a_configuration_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"model\.path .* has no config\.json that can be read"):
        shape_of(ModelConfig(path=str(tmp_path)))


def test_a_model_of_another_family_is_no_guess(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    found = shape_of(ModelConfig(path=str(tmp_path)))
    assert found.shape is None and "'gpt2' is none of" in found.origin


# --- what is kept ---


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.7, 1.0])
def test_the_expected_kept_are_the_mean_over_all_outcomes(top_k: int, rate: float) -> None:
    config = composed(f"selection.top_k={top_k}", "rollouts_per_prompt=4")
    mean = sum(
        prod(rate if right else 1 - rate for right in outcome) * min(sum(outcome), top_k)
        for outcome in product((False, True), repeat=4)
    )
    expected = Groups(config).expect(Odds(rate))
    assert expected.kept == pytest.approx(mean)
    assert expected.solved == pytest.approx(1 - (1 - rate) ** 4)


@pytest.mark.parametrize("at_once", [1, 2, 3, 4])
@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_the_expected_answers_are_the_mean_over_all_outcomes(rate: float, top_k: int, at_once: int) -> None:
    config = composed(f"selection.top_k={top_k}", "rollouts_per_prompt=4", f"sampling.at_once={at_once}")
    mean = 0.0
    for outcome in product((False, True), repeat=4):
        asked = 0
        while asked < 4 and sum(outcome[:asked]) < top_k:
            asked = min(4, asked + at_once)
        mean += asked * prod(rate if right else 1 - rate for right in outcome)
    assert Groups(config).expect(Odds(rate)).sampled == pytest.approx(mean)


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.4, 0.99, 1.0])
def test_right_answers_have_the_mean_and_the_variance_that_the_spread_says(spread: float) -> None:
    chances = right_answers(Odds(0.3, spread), 8)
    mean = sum(count * chance for count, chance in enumerate(chances))
    square = sum(count**2 * chance for count, chance in enumerate(chances))
    assert (sum(chances), mean) == (pytest.approx(1), pytest.approx(8 * 0.3))
    assert square - mean**2 == pytest.approx(8 * 0.3 * 0.7 * (1 + 7 * spread))


@pytest.mark.parametrize(
    ("overrides", "kept"),
    [
        (("algorithm=raft",), 4 * 0.5),
        (("algorithm=sft",), 1),
        (("algorithm=grpo",), 4 * (1 - 2 / 16)),
        (("algorithm=grpo", "sampling.refill=1"), 4 * (1 - (2 / 16) ** 2)),
        (("algorithm=a_star_po", "values.path=x"), 4),
        (("selection=random",), 1),
        (("selection=compat_torchrl",), (4 * 1 + 6 * 2) / 16),
    ],
)
def test_every_way_to_select_is_the_one_of_training(overrides: tuple[str, ...], kept: float) -> None:
    config = composed("rollouts_per_prompt=4", *overrides)
    assert Groups(config).expect(Odds(0.5)).kept == pytest.approx(kept)


def test_duplicates_are_not_kept_twice() -> None:
    alike = Odds(0.5, variety=0.0)
    groups = Groups(composed("algorithm=rejection", "rollouts_per_prompt=4"))
    assert groups.expect(alike).kept == pytest.approx(groups.expect(alike).solved)
    assert groups.expect(Odds(1.0, variety=0.5)).kept == pytest.approx(1 + 3 * 0.5)
    every = Groups(composed("algorithm=raft", "rollouts_per_prompt=4"))
    assert every.expect(alike).kept == pytest.approx(2), "this method keeps duplicates"


def test_prompts_that_differ_bring_less_than_prompts_that_are_alike() -> None:
    groups = Groups(composed())
    kept = [groups.expect(Odds(0.4, spread)).kept for spread in (0.0, 0.2, 0.5, 1.0)]
    assert kept == sorted(kept, reverse=True) and kept[0] > 1.2 * kept[-1]


def test_hints_are_asked_for_where_no_answer_is_right() -> None:
    config = composed("algorithm=star", "rollouts_per_prompt=2", "rationalisation.max_share=0.5")
    assert Groups(config).expect(Odds(0.5)).hinted == pytest.approx(2 * 0.25 * 0.5)


def write_rollouts(run: Path, groups: dict[int, list[str]], **more: object) -> Path:
    """A run whose groups have these responses; empty ones are wrong, and ? is an abstention."""
    (run / "rollouts").mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").touch()
    rows = [
        {
            "iteration": 1,
            "group_id": group_id,
            "prompt_id": group_id,
            "rollout_index": index,
            "response": response,
            "verdict": "correct" if response.strip("?") else "wrong",
            "fate": "abstained" if response == "?" else "kept",
            "tokens": 10,
        }
        | more
        for group_id, responses in groups.items()
        for index, response in enumerate(responses)
    ]
    file = run / "rollouts" / f"iteration_{len(list((run / 'rollouts').iterdir())):04d}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def test_a_run_tells_what_its_answers_were_like(tmp_path: Path) -> None:
    run = write_rollouts(tmp_path, {0: ["a", "a", "B", "b "], 1: ["", "", "", "?"], 2: ["c", "", "", ""]})
    found = odds_of(run, Duplicates.text)
    assert found.pass_rate == pytest.approx(5 / 11)
    assert found.variety == pytest.approx(1 / 3), "of the three that came after the first one, b was new"
    assert found.length == 10
    pairs = (1 + 0 + 0) / 3
    assert found.spread == pytest.approx((pairs - (5 / 11) ** 2) / (5 / 11 * 6 / 11))


def test_answers_with_a_hint_say_nothing_of_the_pass_rate(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("rollouts_per_prompt: 2\n")
    run = write_rollouts(tmp_path, {0: ["", "", "a", "a"]})
    assert odds_of(run, Duplicates.text).pass_rate == 0


@pytest.mark.parametrize("groups", [None, {}, {0: ["?"]}])
def test_a_run_without_judged_answers_cannot_be_planned_with(
    tmp_path: Path, groups: dict[int, list[str]] | None
) -> None:
    run = tmp_path / "run" if groups is None else write_rollouts(tmp_path, groups)
    with pytest.raises(ConfigError, match=str(run)):
        odds_of(run, Duplicates.text)


def test_the_odds_of_a_run_give_back_what_it_kept(tmp_path: Path) -> None:
    """400 prompts with pass rates from 0 to 1, half of the right answers repeat another one."""
    lot, groups = random.Random(0), dict[int, list[str]]()
    for prompt in range(400):
        rate, traces = lot.random(), 0
        groups[prompt] = []
        for _ in range(4):
            right, new = lot.random() < rate, lot.random() < 0.5
            traces += right and (new or not traces)
            groups[prompt].append(f"trace {traces}" if right else "")
    config = composed("rollouts_per_prompt=4", "selection.top_k=2")
    odds = odds_of(write_rollouts(tmp_path, groups), config.selection.duplicates)
    kept = sum(min(2, len(set(answers) - {""})) for answers in groups.values())
    assert odds.spread == pytest.approx(1 / 3, abs=0.05), "that of the uniform distribution"
    assert 400 * Groups(config).expect(odds).kept == pytest.approx(kept, rel=0.03)


# --- what a run does ---


@pytest.mark.parametrize(("overrides", "kept", "steps"), REAL_RUNS)
def test_the_rehearsal_takes_the_steps_of_real_runs(
    overrides: tuple[str, ...], kept: tuple[int, ...], steps: int
) -> None:
    config = composed(*SMALL, *overrides)
    counts = rehearse(config, lambda group_id: spread_out(kept[group_id // 256], 256, group_id))
    assert (counts.kept, counts.steps, counts.pushes) == (sum(kept), steps, 4)
    assert counts.used == sum(kept) * config.epochs


def spread_out(total: int, places: int, index: int) -> int:
    """`total` in whole numbers over `places`, so that none is above the mean by more than one."""
    place = index % places
    return (place + 1) * total // places - place * total // places


def test_the_rehearsal_draws_what_the_buffer_draws() -> None:
    for sampler, epochs, kept in product(("without_replacement", "uniform"), (1, 3), (1, 16, 17)):
        config = composed(
            *("iterations=1", "prompts_per_iteration=40", "rollouts_per_prompt=4", "batch_size=16"),
            *(f"buffer.sampler={sampler}", f"epochs={epochs}"),
        )
        counts = rehearse(config, evenly(kept / 40))
        assert (counts.steps, counts.used) == drawn_from_buffer(config, kept), (sampler, epochs, kept)


def drawn_from_buffer(config: RunConfig, kept: int) -> tuple[int, int]:
    """Optimizer steps, and samples read, of a real buffer that keeps so many."""
    from expert_iteration.buffer import RolloutBuffer
    from tests.test_buffer import rows_of

    buffer, used, step = RolloutBuffer(config), 0, 0
    for group_id in range(kept):
        buffer.add(group_id, rows_of(group_id, 1))
    while buffer.steps_left():
        used += len(buffer.draw(step))
        step += 1
    return step, used


def test_an_asynchronous_run_pushes_by_its_steps() -> None:
    config = composed("mode=async", "iterations=10", "prompts_per_iteration=64", "epochs=1", "batch_size=16")
    counts = rehearse(config, evenly(1.0))
    assert (counts.kept, counts.steps, counts.used) == (640, 40, 640)
    assert counts.pushes == 2, "after 32 steps, and for the 8 that are left in the end"


def test_what_accumulates_is_learned_in_every_later_iteration() -> None:
    config = composed(*SMALL, "algorithm.accumulate=true", "epochs=1")
    counts = rehearse(config, evenly(0.25))
    assert counts.kept == 4 * 64
    assert counts.used == 64 * (1 + 2 + 3 + 4) and counts.steps == counts.used // 16


def test_an_adaptive_run_takes_smaller_batches_of_fewer_samples() -> None:
    config = composed(*SMALL, "adaptive.enabled=true", "epochs=1")
    few, some = rehearse(config, evenly(16 / 256)), rehearse(config, evenly(96 / 256))
    assert (few.steps, max(few.rates)) == (4 * 2, 3.5e-5)
    assert (some.steps, max(some.rates)) == (4 * 3, 5e-5)


def test_the_warm_up_ends_below_the_peak_and_comes_anew_where_training_does() -> None:
    options = (*SMALL, "optimizer.warmup_steps=5", "optimizer.learning_rate=1e-3", "epochs=1")
    counts = rehearse(composed(*options), evenly(1.0))
    assert (counts.steps, counts.warming) == (64, 4)
    assert counts.rates[0] == pytest.approx(2e-4) and max(counts.rates) == pytest.approx(1e-3)
    assert rehearse(composed(*options, "algorithm.start=initial"), evenly(1.0)).warming == 4 * 4


def test_a_linear_schedule_ends_near_zero() -> None:
    config = composed(*SMALL, "optimizer.warmup_steps=0", "optimizer.schedule=linear", "epochs=1")
    counts = rehearse(config, evenly(1.0))
    assert counts.rates == sorted(counts.rates, reverse=True)
    assert counts.rates[-1] == pytest.approx(config.optimizer.learning_rate / counts.steps)


def test_nothing_kept_is_nothing_learned() -> None:
    assert rehearse(composed(*SMALL), evenly(0.0)) == Counts(pushes=4, evaluations=5, checkpoints=4)


@pytest.mark.parametrize("every", [0, 1, 2, 3])
def test_evaluations_and_checkpoints_come_when_stages_say_so(every: int) -> None:
    from expert_iteration.stages import Run

    config = SimpleNamespace(iterations=7)
    for iteration in range(1, 8):
        run = SimpleNamespace(_config=config, progress=SimpleNamespace(iteration=iteration))
        assert is_due(every, iteration, 7) == Run._due(run, every)


def test_whole_answers_of_each_visit_add_up() -> None:
    kept = evenly(1.3)
    assert Counter(kept(group_id) for group_id in range(1000)) == {1: 700, 2: 300}
