"""One optimizer step is the same however it is cut, sharded or interrupted."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensordict import TensorDict
from torch import distributed, multiprocessing
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from expert_iteration.algorithms import ALGORITHMS
from expert_iteration.batching import (
    ADVANTAGE,
    GROUP_ID,
    POLICY_VERSION,
    REFERENCE,
    RESPONSE,
    SAMPLED,
    TOKENS,
)
from expert_iteration.choices import KLSchedule, Normalization, Schedule
from expert_iteration.config import (
    AlgorithmConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
)
from expert_iteration.gradients import sum_in_buckets
from expert_iteration.guard import FEWEST, Diverged
from expert_iteration.learner import Learner
from expert_iteration.reference import ReferenceModel
from expert_iteration.schedules import kl_coefficient, rate_factor
from expert_iteration.trainer import Trainer
from expert_iteration.types import Metrics

ONE_MICRO_BATCH = 10_000


def run_config(
    folder: Path,
    budget: int = ONE_MICRO_BATCH,
    loss: LossConfig | None = None,
    algorithm: str = "expert_iteration",
) -> RunConfig:
    return RunConfig(
        micro_batch_tokens=budget,
        model=ModelConfig(path=str(folder)),
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.1),
        algorithm=AlgorithmConfig(name=algorithm),
        loss=loss or LossConfig(length_divisor=16),
    )


def rows_of(seed: int = 0, count: int = 6) -> list[TensorDict]:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(count):
        prompt, length = 2 + i % 3, 8 + 5 * i
        mask = torch.arange(length) >= prompt
        tokens = torch.randint(0, 300, (length,), generator=generator)
        leaves = {TOKENS: tokens, RESPONSE: mask, SAMPLED: -mask.float(), REFERENCE: -5 * mask.float()}
        leaves |= {ADVANTAGE: torch.tensor(1.0), POLICY_VERSION: torch.tensor(0)}
        leaves |= {GROUP_ID: torch.tensor(i // 2)}
        rows.append(TensorDict(leaves))
    return rows


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.policy.named_weights()}


def stepped(config: RunConfig, rows: list[TensorDict]) -> tuple[Metrics, dict[str, torch.Tensor]]:
    learner = Learner(config)
    metrics = learner.learn(rows, progress=0.0)
    return metrics, weights(learner)


def assert_same_step(
    one: tuple[Metrics, dict[str, torch.Tensor]], other: tuple[Metrics, dict[str, torch.Tensor]]
) -> None:
    """Padding aside, metrics and weights agree to rounding; Adam turns rounding into up to 1e-5 here."""
    assert one[0] | {"train/padding": 0} == pytest.approx(other[0] | {"train/padding": 0}, rel=1e-4)
    torch.testing.assert_close(one[1], other[1], rtol=1e-4, atol=2e-5)


LOSSES = [LossConfig(normalization, length_divisor=16, kl_coefficient=0.1) for normalization in Normalization]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.normalization.value)
def test_a_step_does_not_depend_on_micro_batches_or_order(tiny_model: Path, loss: LossConfig) -> None:
    rows = rows_of()
    whole = stepped(run_config(tiny_model, loss=loss), rows)
    for budget in (1, 40, 100):
        assert_same_step(stepped(run_config(tiny_model, budget, loss), rows), whole)
    assert_same_step(stepped(run_config(tiny_model, loss=loss), rows[::-1]), whole)


def learn_as_rank(rank: int, config: RunConfig, shards: list[list[TensorDict]], folder: Path) -> None:
    """The body of one process of a two-rank run: two steps, then its metrics and weights to a file."""
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "store"), len(shards))
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=len(shards))
    learner = Learner(config, world_size=len(shards))
    metrics = [learner.learn(shard, progress=0.0) for shard in (shards[rank], shards[1 - rank])]
    torch.save((metrics, weights(learner)), folder / f"rank_{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("mine", [2, 0], ids=["uneven shards", "an empty shard"])
def test_two_ranks_take_the_step_of_one(tiny_model: Path, tmp_path: Path, mine: int) -> None:
    rows = rows_of()
    config = run_config(tiny_model, 100, LOSSES[1])
    shards = [rows[:mine], rows[mine:]]
    # Forked, as a fresh interpreter spends its time importing.
    multiprocessing.start_processes(learn_as_rank, (config, shards, tmp_path), nprocs=2, start_method="fork")
    alone = Learner(config)
    expected = [alone.learn(rows, progress=0.0) for _ in range(2)]
    for rank in range(2):
        metrics, found = torch.load(tmp_path / f"rank_{rank}.pt", weights_only=True)
        for step in range(2):
            assert_same_step((metrics[step], found), (expected[step], weights(alone)))


def test_a_rank_leaves_out_a_step_that_went_wrong_on_another(tiny_model: Path, tmp_path: Path) -> None:
    config = run_config(tiny_model)
    shards = [rows_of(), bad_rows()]
    multiprocessing.start_processes(learn_as_rank, (config, shards, tmp_path), nprocs=2, start_method="fork")
    start = weights(Learner(config))
    for rank in range(2):
        metrics, found = torch.load(tmp_path / f"rank_{rank}.pt", weights_only=True)
        assert [each["train/skipped"] for each in metrics] == [1, 1]
        assert all(torch.equal(value, start[name]) for name, value in found.items())


def test_gradients_are_summed_whole_in_buckets_of_one_type(tmp_path: Path) -> None:
    distributed.init_process_group(
        "gloo", store=distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    gradients = [torch.randn(3, 4), torch.randn(5).bfloat16(), torch.randn(2, 2, 2)]
    before = [gradient.clone() for gradient in gradients]
    sum_in_buckets(gradients)
    distributed.destroy_process_group()
    torch.testing.assert_close(gradients, before, rtol=0, atol=0)


def test_learning_raises_the_likelihood_of_the_rows(tiny_model: Path) -> None:
    learner, rows = Learner(run_config(tiny_model)), rows_of()
    losses = [learner.learn(rows, progress=0.0)["loss/objective"] for _ in range(20)]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_method_takes_a_step_that_does_not_depend_on_micro_batches(
    tiny_model: Path, algorithm: str
) -> None:
    rows = rows_of()
    for i, row in enumerate(rows):
        row[ADVANTAGE] = torch.tensor([1.0, -1.0, 0.5][i % 3])
    whole = stepped(run_config(tiny_model, algorithm=algorithm), rows)
    assert whole[0]["train/skipped"] == 0
    assert_same_step(stepped(run_config(tiny_model, 40, algorithm=algorithm), rows), whole)


def test_a_restarted_learner_depends_on_the_initial_model_and_its_rows_alone(tiny_model: Path) -> None:
    config = run_config(tiny_model)
    config.optimizer.warmup_steps = 3
    fresh, restarted = Learner(config), Learner(config)
    for seed in (3, 4):
        restarted.learn(rows_of(seed), progress=0.5)
    restarted.restart()
    for seed in (1, 2):
        one, other = (learner.learn(rows_of(seed), progress=0.1) for learner in (fresh, restarted))
        assert one == other
    assert all(torch.equal(value, weights(restarted)[name]) for name, value in weights(fresh).items())
    assert (fresh.steps, restarted.steps) == (2, 4)


def test_a_batch_baseline_is_the_mean_of_the_whole_step(tiny_model: Path) -> None:
    config = run_config(tiny_model, algorithm="a_star_po")
    config.algorithm.variant = "policy_gradient"
    config.loss.normalization = Normalization.sequence
    rows = rows_of()
    for row in rows:
        row[ADVANTAGE] = torch.tensor(3.0)
    metrics, _ = stepped(config, rows)
    assert metrics["train/advantage"] == 3
    assert metrics["loss/objective"] == pytest.approx(0, abs=1e-6) and metrics["train/grad_norm"] < 1e-5


def test_importance_weights_are_reported_and_capped_for_old_rows(tiny_model: Path) -> None:
    learner, rows = Learner(run_config(tiny_model, algorithm="grpo")), rows_of()
    young = learner.learn(rows, progress=0.0)
    assert 0 < young["train/ess"] < 1 and young["train/clip_fraction"] == 1
    learner = Learner(run_config(tiny_model, algorithm="grpo"))
    learner.version = 2
    for row in rows:
        row[SAMPLED] = row[SAMPLED] * 50
    old = learner.learn(rows, progress=0.0)
    assert old["train/ess"] == pytest.approx(1) and old["train/clip_fraction"] == 1


def test_the_kl_coefficient_may_fall_to_zero_over_the_run() -> None:
    config = LossConfig(kl_coefficient=0.4, kl_schedule=KLSchedule.linear)
    assert [kl_coefficient(config, progress) for progress in (0.0, 0.5, 1.0)] == [0.4, 0.2, 0.0]
    assert kl_coefficient(LossConfig(kl_coefficient=0.4), 0.5) == 0.4


def test_metrics_describe_the_step(tiny_model: Path) -> None:
    rows = rows_of()
    metrics, _ = stepped(run_config(tiny_model), rows)
    responses = sum(int(row[RESPONSE].sum()) for row in rows)
    tokens = sum(len(row[TOKENS]) for row in rows)
    assert metrics["train/response_tokens"] == responses
    assert metrics["train/tokens"] == tokens
    assert metrics["train/sequences"] == len(rows)
    assert metrics["train/padding"] == pytest.approx(1 - tokens / (6 * 33))
    assert metrics["train/entropy"] == pytest.approx(math.log(320), rel=0.05)
    assert metrics["train/log_ratio"] == pytest.approx(1 - metrics["loss/objective"], rel=1e-4)
    assert metrics["loss/total"] == metrics["loss/objective"], "measured, not added"
    assert metrics["loss/kl"] > 0
    assert metrics["train/skipped"] == 0


def test_the_gradient_is_clipped_to_its_limit(tiny_model: Path) -> None:
    config = run_config(tiny_model)
    config.optimizer = replace(config.optimizer, weight_decay=0.0, max_grad_norm=1e-12)
    start = weights(Learner(config))
    metrics, end = stepped(config, rows_of())
    assert metrics["train/grad_norm"] > 1e-3
    # A gradient far below AdamW's epsilon of 1e-8 moves nothing; an unclipped one moves by the rate.
    torch.testing.assert_close(end, start, rtol=0, atol=1e-6)


def test_the_kl_term_is_zero_against_the_model_itself(tiny_model: Path) -> None:
    config, rows = run_config(tiny_model, loss=LossConfig(kl_coefficient=1.0)), rows_of()
    for row, logprobs_T in zip(rows, ReferenceModel(config).log_probs(rows), strict=True):
        row[REFERENCE] = logprobs_T
    learner = Learner(config)
    assert learner.learn(rows, progress=0.0)["loss/kl"] == pytest.approx(0, abs=1e-6)
    assert learner.learn(rows, progress=0.0)["loss/kl"] > 1e-6


def test_the_reference_scores_each_row_as_if_alone(tiny_model: Path) -> None:
    rows = rows_of()
    together = ReferenceModel(run_config(tiny_model, 60)).log_probs(rows)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    for row, logprobs_T in zip(rows, together, strict=True):
        with torch.no_grad():
            logits_TV = model(row[TOKENS][None]).logits[0]
        naive_T = torch.zeros(len(row[TOKENS]))
        naive_T[1:] = logits_TV.log_softmax(-1)[:-1].gather(-1, row[TOKENS][1:, None]).squeeze(-1)
        torch.testing.assert_close(logprobs_T, naive_T * row[RESPONSE])


def test_the_reference_scores_a_group_alike_whatever_arrives_with_it(tiny_model: Path) -> None:
    reference, rows = ReferenceModel(run_config(tiny_model, 10_000)), rows_of()
    together = reference.log_probs(rows)
    for first in (0, 2, 4):
        alone = reference.log_probs(rows[first : first + 2])
        assert all(map(torch.equal, alone, together[first : first + 2]))


@pytest.mark.parametrize("option", ["autocast", "gradient_checkpointing"])
def test_a_step_runs_with_every_way_to_save_memory(tiny_model: Path, option: str) -> None:
    plain, _ = stepped(run_config(tiny_model), rows_of())
    config = run_config(tiny_model)
    setattr(config.model, option, True)
    saving, _ = stepped(config, rows_of())
    assert saving["loss/total"] == pytest.approx(plain["loss/total"], rel=1e-2)
    assert saving["train/grad_norm"] == pytest.approx(plain["train/grad_norm"], rel=5e-2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_skipped_and_counted(tiny_model: Path, value: float) -> None:
    config, rows = run_config(tiny_model, 60, LossConfig(kl_coefficient=1.0)), rows_of()
    learner = Learner(config)
    before = weights(learner)
    bad = [row.clone() for row in rows]
    bad[3][REFERENCE][-1] = value
    skipped = learner.learn(bad, progress=0.0)
    assert (skipped["train/skipped"], skipped["train/spikes"]) == (1, 0)
    assert all(torch.equal(value, before[name]) for name, value in learner.policy.named_weights())
    after = learner.learn(rows, progress=0.0)
    assert after["train/skipped"] == 0 and math.isfinite(after["loss/total"])
    torch.testing.assert_close(weights(learner), stepped(config, rows)[1], rtol=0, atol=0)


def test_a_step_without_a_response_token_is_skipped(tiny_model: Path) -> None:
    learner = Learner(run_config(tiny_model))
    before = weights(learner)
    [row] = rows_of(count=1)
    row[RESPONSE][:] = False
    for rows in ([], [row]):
        metrics = learner.learn(rows, progress=0.0)
        assert metrics["train/skipped"] == 1
        assert all(math.isfinite(value) for value in metrics.values())
    torch.testing.assert_close(weights(learner), before, rtol=0, atol=0)


def bad_rows(seed: int = 0) -> list[TensorDict]:
    """Rows whose loss is not a number."""
    rows = rows_of(seed)
    rows[2][ADVANTAGE] = torch.tensor(math.nan)
    return rows


def spiking_rows(seed: int = 0) -> list[TensorDict]:
    """Rows whose gradient is a thousand times as long as that of `rows_of`."""
    rows = rows_of(seed)
    for row in rows:
        row[ADVANTAGE] = torch.tensor(1000.0)
    return rows


def guarded(folder: Path, spike_factor: float | None = 5.0, max_skipped: int = 3) -> Learner:
    """A learner of a method whose gradient grows with the advantages, as they are."""
    config = run_config(folder, algorithm="a_star_po")
    config.algorithm.variant = "regression"
    config.optimizer = replace(config.optimizer, spike_factor=spike_factor, max_skipped=max_skipped)
    return Learner(config)


def saved_state(learner: Learner, folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights and moments, as a checkpoint has them."""
    learner.save(folder)
    return weights(learner), load_file(folder / "trainer_0.safetensors")


@pytest.mark.parametrize("rows", [bad_rows(), spiking_rows()], ids=["not a number", "spike"])
def test_a_step_that_is_left_out_touches_neither_weights_nor_moments(
    tiny_model: Path, tmp_path: Path, rows: list[TensorDict]
) -> None:
    learner = guarded(tiny_model)
    for seed in range(FEWEST):
        assert learner.learn(rows_of(seed), progress=0.0)["train/skipped"] == 0
    before = saved_state(learner, tmp_path)
    assert learner.learn(rows, progress=0.0)["train/skipped"] == 1
    after = saved_state(learner, tmp_path)
    assert learner.steps == FEWEST + 1
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)


def test_a_spike_is_left_out_where_a_factor_is_set_and_counted_apart(tiny_model: Path) -> None:
    for factor, expected in ((None, 0), (1e6, 0), (5.0, 1)):
        learner = guarded(tiny_model, spike_factor=factor)
        norms = [learner.learn(rows_of(seed), progress=0.0)["train/grad_norm"] for seed in range(FEWEST)]
        metrics = learner.learn(spiking_rows(), progress=0.0)
        assert metrics["train/grad_norm"] > 100 * max(norms)
        assert (metrics["train/skipped"], metrics["train/spikes"]) == (expected, expected)


def test_so_many_steps_left_out_in_a_row_end_the_run(tiny_model: Path) -> None:
    learner = guarded(tiny_model, max_skipped=2)
    learner.learn(bad_rows(), progress=0.0)
    learner.learn(rows_of(), progress=0.0)
    before = weights(learner)
    learner.learn(bad_rows(), progress=0.0)
    assert learner.learn([], progress=0.0)["train/skipped"] == 1, "holds nothing: neither counts nor resets"
    with pytest.raises(Diverged, match=r"2 optimizer steps in a row .* loss nan .*learning_rate \(0\.001\)"):
        learner.learn(bad_rows(), progress=0.0)
    assert all(torch.equal(value, before[name]) for name, value in learner.policy.named_weights())


def test_what_went_wrong_in_a_row_still_counts_after_a_restart(tiny_model: Path) -> None:
    learner = guarded(tiny_model, max_skipped=2)
    learner.learn(bad_rows(), progress=0.0)
    learner.restart()
    with pytest.raises(Diverged):
        learner.learn(bad_rows(), progress=0.0)


def test_a_restarted_learner_has_no_norms_to_compare_with(tiny_model: Path) -> None:
    learner = guarded(tiny_model)
    for seed in range(FEWEST):
        learner.learn(rows_of(seed), progress=0.0)
    learner.restart()
    assert learner.learn(spiking_rows(), progress=0.0)["train/skipped"] == 0


def test_a_resumed_learner_leaves_out_and_gives_up_as_the_straight_one(
    tiny_model: Path, tmp_path: Path
) -> None:
    straight = guarded(tiny_model)
    for seed in range(FEWEST):
        straight.learn(rows_of(seed), progress=0.0)
    straight.learn(bad_rows(), progress=0.0)
    straight.save(tmp_path)
    resumed = guarded(tiny_model)
    resumed.load(tmp_path)
    messages = []
    for learner in (straight, resumed):
        assert learner.learn(spiking_rows(), progress=0.0)["train/spikes"] == 1
        with pytest.raises(Diverged) as end:
            learner.learn(spiking_rows(), progress=0.0)
        messages.append(str(end.value))
    assert messages[0] == messages[1]


def taught(config: RunConfig, world_size: int = 1) -> Learner:
    """Two steps on; with several ranks, one of them, which needs no process group to save."""
    learner = Learner(config)
    for seed in range(2):
        learner.learn(rows_of(seed), progress=0.0)
    learner._world_size = world_size
    return learner


@pytest.mark.parametrize(("writers", "readers"), [(1, 2), (2, 1), (2, 2), (3, 1)])
def test_a_checkpoint_of_any_number_of_ranks_resumes_on_any_other(
    tiny_model: Path, tmp_path: Path, writers: int, readers: int
) -> None:
    config = run_config(tiny_model)
    for rank in range(writers):
        taught(config, writers).save(tmp_path, rank)
    straight = taught(config)
    straight.learn(rows_of(seed=2), progress=0.0)
    for _ in range(readers):
        resumed = Learner(config)
        resumed.load(tmp_path)
        resumed.learn(rows_of(seed=2), progress=0.0)
        expected = weights(straight)
        assert all(torch.equal(value, expected[name]) for name, value in resumed.policy.named_weights())


def test_each_rank_writes_its_share_of_the_moments_and_the_first_all_else(
    tiny_model: Path, tmp_path: Path
) -> None:
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        taught(run_config(tiny_model), world_size=2).save(tmp_path / str(rank), rank)
    first, second = (load_file(tmp_path / str(rank) / f"trainer_{rank}.safetensors") for rank in (0, 1))
    learner = Learner(run_config(tiny_model))
    names = [name for name, _ in learner.policy.named_weights()]
    assert {key.split("/")[1] for key in first} == set(names[::2])
    assert {key.split("/")[1] for key in second} == set(names[1::2])
    assert {path.name for path in (tmp_path / "0").iterdir()} == {
        "model",
        "trainer.json",
        "trainer_0.safetensors",
    }
    assert [path.name for path in (tmp_path / "1").iterdir()] == ["trainer_1.safetensors"]


def test_a_trainer_of_a_later_rank_writes_its_share_alone(tiny_model: Path, tmp_path: Path) -> None:
    config = run_config(tiny_model)
    config.placement.train.devices = 2
    Trainer(config, "cpu", source=None, rank=1).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["trainer_1.safetensors"]


def test_a_checkpoint_that_lacks_the_share_of_a_rank_is_not_loaded(tiny_model: Path, tmp_path: Path) -> None:
    taught(run_config(tiny_model), world_size=2).save(tmp_path, rank=0)
    with pytest.raises(FileNotFoundError, match="trainer_1"):
        Learner(run_config(tiny_model)).load(tmp_path)


def test_a_resumed_learner_goes_on_bit_for_bit(tiny_model: Path, tmp_path: Path) -> None:
    straight = Learner(run_config(tiny_model))
    for seed in range(2):
        straight.learn(rows_of(seed), progress=seed / 3)
    straight.save(tmp_path)
    resumed = Learner(run_config(tiny_model))
    resumed.load(tmp_path)
    ends = [learner.learn(rows_of(seed=2), progress=2 / 3) for learner in (straight, resumed)]
    assert ends[0] == ends[1]
    assert straight.steps == resumed.steps == 3
    expected = weights(straight)
    assert all(torch.equal(value, expected[name]) for name, value in resumed.policy.named_weights())


def test_a_saved_model_is_a_hugging_face_folder_with_its_tokenizer(tiny_model: Path, tmp_path: Path) -> None:
    learner = Learner(run_config(tiny_model))
    learner.learn(rows_of(), progress=0.0)
    learner.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    saved = model.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in learner.policy.named_weights())
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "model")
    assert tokenizer.decode(tokenizer.encode("a  b")) == "a  b"


def test_named_weights_leave_out_the_tied_output_layer(tiny_model: Path) -> None:
    names = [name for name, _ in Learner(run_config(tiny_model)).policy.named_weights()]
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names


def test_a_reset_optimizer_forgets_its_moments_and_keeps_the_count(tiny_model: Path, tmp_path: Path) -> None:
    learner = Learner(run_config(tiny_model))
    learner.learn(rows_of(), progress=0.0)
    learner.reset_optimizer()
    learner.save(tmp_path)
    fresh = Learner(run_config(tmp_path / "model"))
    for each in (learner, fresh):
        each.learn(rows_of(seed=1), progress=0.0)
    torch.testing.assert_close(weights(learner), weights(fresh), rtol=0, atol=0)
    assert (learner.steps, fresh.steps) == (2, 1)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Schedule.constant, [2.0, 2.0, 2.0]),
        (Schedule.linear, [2.0, 1.0, 0.0]),
        (Schedule.cosine, [2.0, 1.0, 0.0]),
    ],
)
def test_a_schedule_starts_at_the_rate_and_ends_with_the_run(schedule: Schedule, rates: list[float]) -> None:
    options = OptimizerConfig(schedule=schedule)
    found = [2.0 * rate_factor(options, step=9, progress=progress) for progress in (0.0, 0.5, 1.0)]
    assert found == pytest.approx(rates)


def test_the_warm_up_rises_over_its_steps_to_the_schedule() -> None:
    options = OptimizerConfig(warmup_steps=4)
    found = [2.0 * rate_factor(options, step, progress=0.0) for step in range(6)]
    assert found == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


class Movable:
    """A model that notes where it is moved, and stays where it is."""

    def __init__(self, model):
        self.model, self.moves = model, []

    def to(self, device):
        self.moves.append(str(device))

    def __getattr__(self, name):
        return getattr(self.model, name)


@pytest.mark.parametrize(("offload", "moves"), [(True, ["cpu", "cuda"]), (False, ["cuda"])])
def test_a_reference_that_gives_way_is_back_on_its_device_when_it_is_asked(tiny_model, offload, moves):
    config = run_config(tiny_model, 10_000)
    config.placement.reference.offload = offload
    reference, rows = ReferenceModel(config), rows_of()
    before = reference.log_probs(rows)
    reference._device, reference.model = "cuda", Movable(reference.model)
    reference.rest()
    for one, other in zip(reference.log_probs(rows), before, strict=True):
        assert torch.equal(one, other)
    assert reference.model.moves == moves
