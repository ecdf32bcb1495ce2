"""Ranks that share one copy of the weights learn what one rank learns, and push, save and resume as one."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensordict import TensorDict
from torch import distributed, multiprocessing

from expert_iteration.agreement import Mismatch
from expert_iteration.choices import Dtype, Sharding
from expert_iteration.config import LoraConfig, LossConfig, RunConfig
from expert_iteration.engine import Request, Rollouts
from expert_iteration.gathered import save_gathered
from expert_iteration.learner import Learner
from expert_iteration.trainer import Trainer
from expert_iteration.types import Finish, Interruption, Metrics, Rollout
from expert_iteration.weights import Bucket, unpack
from tests.test_learner import assert_same_step, bad_rows, rows_of, run_config

STEPS = 3


def sharded(config: RunConfig, ranks: int, offload: bool = False) -> RunConfig:
    train = replace(config.placement.train, devices=ranks, sharding=Sharding.full, cpu_offload=offload)
    return replace(config, placement=replace(config.placement, train=train))


def with_adapters(config: RunConfig) -> RunConfig:
    """Adapters of rank 2, so that of four ranks two hold nothing of an A."""
    config.model.lora = LoraConfig(rank=2, alpha=8)
    return config


def on_ranks(folder: Path, ranks: int, work: Callable[..., Any], *arguments: object) -> list[Any]:
    """What `work` returns on each of so many ranks, which are processes of their own."""
    folder.mkdir()
    # Forked, as a fresh interpreter spends its time importing.
    multiprocessing.start_processes(
        as_rank, (ranks, folder, work, arguments), nprocs=ranks, start_method="fork"
    )
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in range(ranks)]


def as_rank(rank: int, ranks: int, folder: Path, work: Callable[..., Any], arguments: tuple[Any]) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "store"), ranks)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    torch.save(work(rank, ranks, *arguments), folder / f"rank_{rank}.pt")
    distributed.destroy_process_group()


def shard_of(rows: Sequence[TensorDict], rank: int, ranks: int) -> Sequence[TensorDict]:
    """Rows of one rank: the last rank has none of them, the others differ in how many they have."""
    return rows[rank :: ranks - 1] if rank < ranks - 1 else []


def taught(learner: Learner, seeds: Sequence[int], rank: int = 0, ranks: int = 1) -> list[Metrics]:
    shards = [rows_of(seed) if ranks == 1 else shard_of(rows_of(seed), rank, ranks) for seed in seeds]
    return [learner.learn(shard, progress=0.0) for shard in shards]


def weights_and_scores(learner: Learner, rank: int = 0) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """As a push and its verification get them: the first rank asks, the others follow."""
    if rank > 0:
        learner.policy.follow()
        return {}, []
    with learner.policy.leading():
        weights = {name: value.clone() for name, value in learner.policy.named_weights()}
        return weights, learner.policy.score(rows_of(seed=9))


def teach(
    rank: int, ranks: int, config: RunConfig, source: Path | None, target: Path, seeds: Sequence[int]
) -> Any:
    """Go on from one checkpoint, learn, and write the next."""
    learner = Learner(config, world_size=ranks)
    if source is not None:
        learner.load(source)
    metrics = taught(learner, seeds, rank, ranks)
    learner.save(target, rank)
    return metrics, *weights_and_scores(learner, rank)


def straight(config: RunConfig, folder: Path, steps: int = STEPS) -> Any:
    """The same on one rank that holds everything."""
    folder.mkdir()
    return teach(0, 1, config, None, folder, range(steps))


def plain(folder: Path) -> RunConfig:
    return run_config(folder, 60, LossConfig(length_divisor=16, kl_coefficient=0.1))


def recomputing(folder: Path) -> RunConfig:
    config = plain(folder)
    config.model.gradient_checkpointing = True
    return config


def adapted(folder: Path) -> RunConfig:
    return with_adapters(plain(folder))


def moments(folder: Path) -> dict[str, torch.Tensor]:
    return {
        key: value for file in folder.glob("trainer_*.safetensors") for key, value in load_file(file).items()
    }


@pytest.mark.parametrize(
    ("settings", "offload", "ranks"),
    [
        *((settings, False, ranks) for settings in (plain, adapted) for ranks in (2, 4)),
        *((settings, True, 2) for settings in (plain, adapted)),
        (recomputing, False, 2),
        (recomputing, True, 4),
    ],
)
def test_ranks_that_share_the_weights_take_the_steps_of_one(
    tiny_model: Path, tmp_path: Path, settings: Callable[[Path], RunConfig], offload: bool, ranks: int
) -> None:
    config = settings(tiny_model)
    expected, weights, scores = straight(config, tmp_path / "one")
    (tmp_path / "saved").mkdir()
    shared = sharded(config, ranks, offload)
    found = on_ranks(tmp_path / "ranks", ranks, teach, shared, None, tmp_path / "saved", range(STEPS))
    for metrics, _, _ in found:
        for step in range(STEPS):
            assert_same_step((metrics[step], found[0][1]), (expected[step], weights))
    torch.testing.assert_close(found[0][2], scores, rtol=1e-3, atol=1e-3)
    mine, theirs = moments(tmp_path / "saved"), moments(tmp_path / "one")
    assert mine.keys() == theirs.keys()
    torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("settings", [plain, adapted])
def test_a_checkpoint_of_two_ranks_resumes_on_one_and_then_on_four(
    tiny_model: Path, tmp_path: Path, settings: Callable[[Path], RunConfig]
) -> None:
    config = settings(tiny_model)
    expected, weights, _ = straight(config, tmp_path / "one", steps=6)
    two, one, four = (tmp_path / name for name in ("two", "whole", "four"))
    for folder in (two, one, four):
        folder.mkdir()
    first = on_ranks(tmp_path / "a", 2, teach, sharded(config, 2), None, two, (0, 1))
    second = teach(0, 1, config, two, one, (2, 3))
    third = on_ranks(tmp_path / "b", 4, teach, sharded(config, 4), one, four, (4, 5))
    metrics = [*first[0][0], *second[0], *third[0][0]]
    for step in range(6):
        assert_same_step((metrics[step], third[0][1]), (expected[step], weights))
    resumed = Learner(config)
    resumed.load(four)
    found, _ = weights_and_scores(resumed)
    assert resumed.steps == 6 and all(torch.equal(value, found[name]) for name, value in third[0][1].items())


def test_a_sharded_model_is_saved_as_any_other_in_pieces(tiny_model: Path, tmp_path: Path) -> None:
    config = plain(tiny_model)
    learner = Learner(config)
    learner.policy.save(tmp_path / "usual", rank=0)
    model, weights = learner.policy.model, list(learner.policy.named_weights())
    for name, piece_bytes in (("whole", 2**30), ("pieces", 100_000), ("nothing", 2**30)):
        save_gathered(model, weights, tmp_path / name, rank=int(name == "nothing"), piece_bytes=piece_bytes)
    assert not (tmp_path / "nothing").exists()
    for file in ("config.json", "generation_config.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "usual" / file).read_bytes()
    assert len(list((tmp_path / "pieces").glob("*.safetensors"))) > 2
    for folder in ("whole", "pieces"):
        found = Learner(run_config(tmp_path / folder)).policy.named_weights()
        for (name, value), (other, expected) in zip(found, weights, strict=True):
            assert name == other and torch.equal(value, expected)


class Engine:
    """Takes weights, and breaks at the push of version 1."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self._version = 0

    def start_update(self, version: int) -> None:
        self._version = version

    def receive(self, bucket: Bucket) -> None:
        if self._version == 1:
            raise ConnectionError("the engine is gone")
        self.weights |= {name: value.clone() for name, value in unpack(bucket)}

    def finish_update(self) -> Interruption:
        return Interruption()

    def sample(self, requests: Sequence[Request]) -> dict[str, list[Rollouts]]:
        """What no policy says."""
        said = Rollout(0, (5, 6), (-50.0, -50.0), "", Finish.STOP, self._version, self._version)
        return {"collector 0": [(said,)] * len(requests)}


def push_twice(rank: int, _: int, config: RunConfig) -> Any:
    trainer, engine = Trainer(config, "cpu", source=None, rank=rank), Engine()
    broken = False
    try:
        trainer.publish([engine], 1)
    except ConnectionError:
        broken = True
    refused = False
    try:
        trainer.publish([engine], 2, probes=[(7, 8, 9)])
    except Mismatch:
        refused = True
    engine.weights.clear()
    trainer.publish([engine], 3)
    return broken and refused, engine.weights


@pytest.mark.parametrize("settings", [plain, adapted])
def test_a_push_that_breaks_or_is_refused_keeps_no_other_rank_waiting_and_the_next_one_is_whole(
    tiny_model: Path, tmp_path: Path, settings: Callable[[Path], RunConfig]
) -> None:
    config = settings(tiny_model)
    config.model.engine_dtype, config.sampling.max_tokens = Dtype.float32, 8
    expected = dict(Learner(config).policy.named_weights())
    (told, weights), (other, nothing) = on_ranks(tmp_path / "ranks", 2, push_twice, sharded(config, 2))
    assert told and not other and not nothing
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def leave_early(rank: int, ranks: int, config: RunConfig) -> int:
    """Read one weight, then lose interest; what is said next is still understood."""
    policy = Learner(config, world_size=ranks).policy
    if rank > 0:
        policy.follow()
        return -1
    with policy.leading():
        with closing(policy.named_weights()) as weights:
            next(weights)
        return len(policy.score(rows_of()))


def test_a_reader_who_leaves_early_leaves_the_ranks_in_step(tiny_model: Path, tmp_path: Path) -> None:
    assert on_ranks(tmp_path / "ranks", 2, leave_early, sharded(plain(tiny_model), 2)) == [6, -1]


def restart_and_step(rank: int, ranks: int, config: RunConfig) -> Any:
    """A step that one rank alone knows to be wrong, then one, a look, a restart and the same step again."""
    learner = Learner(config, world_size=ranks)
    bad = learner.learn(bad_rows() if rank else rows_of(), progress=0.0)
    first = taught(learner, [1], rank, ranks)
    weights_and_scores(learner, rank)
    learner.restart()
    return bad, first, taught(learner, [1], rank, ranks)


@pytest.mark.parametrize("settings", [plain, adapted])
def test_ranks_leave_out_a_step_alike_and_restart_alike(
    tiny_model: Path, tmp_path: Path, settings: Callable[[Path], RunConfig]
) -> None:
    found = on_ranks(tmp_path / "ranks", 2, restart_and_step, sharded(settings(tiny_model), 2))
    for bad, first, again in found:
        assert bad["train/skipped"] == 1 and first[0]["train/skipped"] == 0
        assert first == again == found[0][1]


def one_step(rank: int, ranks: int, config: RunConfig) -> Any:
    return taught(Learner(config, world_size=ranks), [0], rank, ranks)[0]


@pytest.mark.parametrize("settings", [plain, adapted])
@pytest.mark.parametrize("dtype", Dtype)
def test_bfloat16_is_computed_in_about_as_well_where_weights_are_shared(
    tiny_model: Path, tmp_path: Path, settings: Callable[[Path], RunConfig], dtype: Dtype
) -> None:
    exact = one_step(0, 1, settings(tiny_model))
    config = settings(tiny_model)
    config.model.dtype, config.model.autocast = dtype, dtype is Dtype.float32
    for metrics in on_ranks(tmp_path / "ranks", 2, one_step, sharded(config, 2)):
        assert metrics["loss/total"] == pytest.approx(exact["loss/total"], rel=1e-2)
        assert metrics["train/grad_norm"] == pytest.approx(exact["train/grad_norm"], rel=5e-2)
