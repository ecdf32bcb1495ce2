"""What a run needs, as planned, and the refusal of what cannot fit."""

from pathlib import Path

import pytest

from expert_iteration.choices import Dtype
from expert_iteration.planning import memory
from expert_iteration.planning.disk import disk_use
from expert_iteration.planning.machine import Machine, described, parse, this_machine
from expert_iteration.planning.memory import GIB, activation_bytes
from expert_iteration.planning.shapes import read_shape
from tests.plans import PUBLISHED, SMALL, composed, plan, shape


def test_the_numbers_of_other_modules_are_theirs() -> None:
    from expert_iteration import gradients, model
    from expert_iteration.actors import instance

    assert memory.LOGITS_AT_ONCE == model.LOGITS_AT_ONCE
    assert memory.BUCKET_ELEMENTS == gradients.BUCKET_ELEMENTS
    assert memory.OBJECT_STORE_BYTES == instance.OBJECT_STORE_BYTES


@pytest.mark.parametrize("family", ["Qwen2", "Qwen3", "Llama"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("dtype", "autocast"), [(Dtype.float32, False), (Dtype.float32, True), (Dtype.bfloat16, False)]
)
def test_activations_are_what_the_backward_pass_keeps(
    family: str, dtype: Dtype, autocast: bool, checkpointing: bool
) -> None:
    import torch
    import transformers

    sizes = {"vocab_size": 64, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    config = getattr(transformers, f"{family}Config")(**sizes, **heads)
    model = getattr(transformers, f"{family}ForCausalLM")(config).to(getattr(torch, dtype.value)).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    found, measured = read_shape(config.to_dict()), kept_bytes(model, 16, 128, autocast) / (16 * 128)
    assert found is not None
    expected = activation_bytes(found, dtype, autocast, checkpointing)
    if checkpointing:  # the layer that is computed anew is not there yet
        expected -= memory.layer_bytes(found, dtype, autocast)
    assert expected == pytest.approx(measured, rel=0.1)


def kept_bytes(model, rows: int, length: int, autocast: bool) -> int:
    """Bytes that autograd keeps of a forward pass through the decoder, the weights and their copies aside."""
    import torch

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights and tensor.shape[0] in (rows, rows * length):
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.zeros(rows, length, dtype=torch.int64)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        hidden = model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state
    assert hidden.shape[:2] == (rows, length)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("lora", [(), ("model.lora.rank=8", "model.lora.targets=[q_proj, down_proj]")])
def test_a_checkpoint_takes_what_is_planned(tmp_path: Path, lora: tuple[str, ...]) -> None:
    import torch

    from expert_iteration.learner import Learner
    from expert_iteration.tokenizer import resolve_model

    config = resolve_model(composed(*SMALL, *lora))
    learner = Learner(config)
    for parameter in learner.policy.trained.values():
        parameter.grad = torch.zeros_like(parameter)
    learner._optimizer.step()
    learner.save(tmp_path)
    written = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    planned = disk_use(config, shape(), written=9, answers=0, length=None)
    ledger = 240 * 4 * 256
    # beside what is counted lie a tokenizer, and the names of the tensors
    assert planned.checkpoint == pytest.approx(written + ledger, abs=250_000)
    assert (planned.kept, planned.most) == (3, 4 * planned.checkpoint)


def test_a_trainer_holds_weights_gradients_and_two_moments() -> None:
    needs = plan(*SMALL).needs
    assert needs is not None
    trainer, collector = needs.processes
    weights = 4 * 854_144
    assert [trainer.parts[name] for name in ("weights", "gradients", "moments")] == [
        weights,
        weights,
        2 * weights,
    ]
    assert collector.parts["weights"] == 2 * 854_144
    assert collector.parts["KV cache"] == 256 * 2**20
    assert "copies" not in trainer.parts


@pytest.mark.parametrize("targets", ["null", "[q_proj,gate_proj]"])
def test_adapters_are_counted_as_the_learner_makes_them(targets: str) -> None:
    from expert_iteration.policy import Policy
    from expert_iteration.tokenizer import resolve_model

    overrides = (*SMALL, "model.lora.rank=8", f"model.lora.targets={targets}", "loss.kl_coefficient=0.1")
    policy = Policy(resolve_model(composed(*overrides)), "cpu")
    adapters = 4 * sum(weight.numel() for weight in policy.trained.values())
    needs = plan(*overrides).needs
    assert needs is not None
    trainer, _ = needs.processes  # and no reference
    assert trainer.parts["weights"] == 4 * 854_144 + adapters
    assert (trainer.parts["gradients"], trainer.parts["moments"]) == (adapters, 2 * adapters)


def test_ranks_that_share_the_weights_hold_a_part_each_and_what_they_gather() -> None:
    ranks = ("experiment=cs336_ei", "placement.train.devices=4", "model.autocast=true")
    alone, shared, offloaded = (
        plan(*ranks, *more).needs
        for more in (
            (),
            ("placement.train.sharding=full",),
            ("placement.train.sharding=full", "placement.train.cpu_offload=true"),
        )
    )
    assert alone is not None and shared is not None and offloaded is not None
    whole, part, away = (needs.processes[0] for needs in (alone, shared, offloaded))
    for name in ("weights", "gradients", "moments"):
        assert part.parts[name] == whole.parts[name] // 4 and name not in away.parts
    assert 0 < part.parts["copies"] < whole.parts["copies"] / 2, "the embedding and two of 28 layers"
    state = sum(part.parts[name] for name in ("weights", "gradients", "moments"))
    assert away.host["offloaded"] == state and "offloaded" not in offloaded.processes[-1].host


def test_a_gpu_is_taken_by_the_share_that_vllm_is_given() -> None:
    needs = plan("experiment=cs336_ei", machine=described(2, 80, 128)).needs
    assert needs is not None
    trainer, collector = needs.processes
    assert (trainer.device, collector.device) == ("GPU 0", "GPU 1")
    assert collector.total == round(0.9 * 80 * GIB)
    assert trainer.parts["copies"] == 2 * PUBLISHED["Qwen/Qwen2.5-Math-1.5B"], "autocast makes them"


def test_a_shared_gpu_holds_all_of_them_and_several_ranks_have_one_each() -> None:
    one = plan("experiment=cs336_ei", "placement=one_gpu", "loss.kl_coefficient=0.1").needs
    more = plan("experiment=cs336_ei", "placement.train.devices=2", "placement.infer.tensor_parallel=2").needs
    assert one is not None and more is not None
    assert [(process.name, process.device) for process in one.processes] == [
        ("trainer 0", "GPU 0"),
        ("collector 0", "GPU 0"),
        ("reference 0", "GPU 0"),
    ]
    assert [(process.name, process.device) for process in more.processes] == [
        ("trainer 0", "GPU 0"),
        ("trainer 1", "GPU 1"),
        ("collector 0.0", "GPU 2"),
        ("collector 0.1", "GPU 3"),
    ]


# --- what cannot fit ---


def refusals(*overrides: str, machine: Machine) -> list[str]:
    return list(plan(*overrides, machine=machine).problems())


def test_what_fits_is_not_refused() -> None:
    assert refusals(machine=Machine((), 8 * GIB, GIB)) == []
    assert refusals("experiment=cs336_ei", machine=described(2, 80, 128)) == []
    assert refusals("experiment=cs336_ei", machine=described(2, None, None)) == [], "no size, no judgement"


@pytest.mark.parametrize(
    ("overrides", "machine", "words"),
    [
        (
            ("experiment=cs336_ei",),
            described(1, 80, None),
            ("placement needs 2 GPUs", "placement.infer.replicas", "--devices says 1", "placement=one_gpu"),
        ),
        (
            ("experiment=cs336_ei",),
            Machine((), 64 * GIB, 100 * GIB),
            ("this machine has 0", "--devices and --memory"),
        ),
        (
            ("experiment=cs336_ei", "placement=one_gpu"),
            described(1, 24, None),
            ("GPU 0 would need", "24.0 GiB", "trainer 0", "micro_batch_tokens (16384)", "placement=split"),
        ),
        (
            ("experiment=cs336_ei", "model.gradient_checkpointing=false"),
            described(2, 40, None),
            ("GPU 0 would need", "set model.gradient_checkpointing=true"),
        ),
        (
            ("experiment=cs336_ei", "placement.train.devices=2"),
            described(3, 24, None),
            ("GPU 0 would need", "set placement.train.sharding=full"),
        ),
        (
            ("experiment=cs336_ei", "placement=one_gpu"),
            described(1, 8, None),
            ("GPU 0 would need",),
        ),
        (
            ("experiment=cs336_ei", "placement.infer.memory_fraction=0.05"),
            described(2, 80, None),
            ("placement.infer.memory_fraction (0.05)", "KV cache of 0 tokens", "model.max_length (2048)"),
        ),
        (
            ("placement.infer.kv_cache_mib=1",),
            Machine((), 64 * GIB, 100 * GIB),
            ("placement.infer.kv_cache_mib (1)", "KV cache of 1,024 tokens", "model.max_length (2048)"),
        ),
        (
            ("placement.infer.replicas=4",),
            Machine((), 4 * GIB, 100 * GIB),
            ("the host would need", "4.0 GiB", "collector", "placement.infer.replicas (4)"),
        ),
        (
            (),
            Machine((), 64 * GIB, 2**20),
            ("the run folder would take", "hydra.run.dir", "checkpoint.keep_last (2)"),
        ),
    ],
)
def test_what_cannot_fit_is_refused_with_its_keys_and_the_remedy(
    overrides: tuple[str, ...], machine: Machine, words: tuple[str, ...]
) -> None:
    first = refusals(*overrides, machine=machine)[0]
    assert [word for word in words if word not in first] == [], first
    assert "\n" not in first and first.endswith(".")


def test_gpus_are_those_that_the_run_may_see() -> None:
    answer = "81559\n24564\n"
    assert parse(answer, None) == [81559 * 2**20, 24564 * 2**20]
    assert parse(answer, "1") == [24564 * 2**20]
    assert parse(answer, "") == parse("No devices were found\n", None) == []
    assert len(parse(answer, "GPU-5f1c")) == 1


def test_this_machine_has_memory_and_a_disk(tmp_path: Path) -> None:
    here = this_machine(tmp_path / "not" / "yet")
    assert here.memory is not None and here.memory > 2**28
    assert here.disk is not None and here.disk > 0
    assert not (tmp_path / "not").exists()
