"""Adapters are all that is trained; engines and others see whole weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from expert_iteration.algorithms import needs_reference, reads_reference
from expert_iteration.batching import REFERENCE
from expert_iteration.choices import Dtype
from expert_iteration.config import ConfigError, LoraConfig, LossConfig, ModelConfig, RunConfig
from expert_iteration.learner import Learner
from expert_iteration.model import load_model
from expert_iteration.model_files import model_folder
from tests.test_learner import assert_same_step, rows_of, run_config

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def adapted(folder: Path, targets: list[str] | None = None, rank: int = 4) -> RunConfig:
    config = run_config(folder, loss=LossConfig(length_divisor=16, kl_coefficient=0.1))
    config.model.lora = LoraConfig(rank=rank, alpha=8, targets=targets)
    return config


def taught(config: RunConfig, steps: int = 2) -> Learner:
    learner = Learner(config)
    for seed in range(steps):
        learner.learn(rows_of(seed), progress=0.0)
    return learner


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.policy.named_weights()}


def read_by_peft(base: Path, adapter: Path, dtype: torch.dtype = torch.float32) -> Any:
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), str(adapter))


@pytest.mark.parametrize("targets", [None, ["v_proj", "q_proj"]])
def test_only_adapters_are_trained(tiny_model: Path, targets: list[str] | None) -> None:
    learner = Learner(adapted(tiny_model, targets))
    sizes = {"q_proj": 128, "k_proj": 96, "v_proj": 96, "o_proj": 128} | dict.fromkeys(LAYERS[4:], 192)
    expected = 2 * 4 * sum(sizes[name] for name in targets or LAYERS)
    assert sum(weight.numel() for weight in learner.policy.trained.values()) == expected
    before = {name: value.clone() for name, value in learner.policy.model.named_parameters()}
    learner.learn(rows_of(), progress=0.0)
    learner.learn(rows_of(), progress=0.0)
    after = dict(learner.policy.model.named_parameters())
    changed = {name for name, value in after.items() if not value.equal(before[name])}
    assert changed == learner.policy.trained.keys() and all(".lora_" in name for name in changed)
    assert sum(map(len, (group["params"] for group in learner._optimizer.param_groups))) == len(changed)


def test_a_policy_begins_as_its_base_model(tiny_model: Path) -> None:
    learner = Learner(adapted(tiny_model))
    base = dict(load_model(ModelConfig(path=str(tiny_model)), "cpu").named_parameters())
    assert weights(learner).keys() == base.keys()
    assert all(torch.equal(value, base[name]) for name, value in weights(learner).items())


@pytest.mark.parametrize("dtype", Dtype)
def test_what_is_pushed_is_what_peft_merges(tiny_model: Path, tmp_path: Path, dtype: Dtype) -> None:
    config = adapted(tiny_model)
    config.model.dtype = dtype
    learner = taught(config)
    learner.save(tmp_path)
    pushed = weights(learner)
    adapter = read_by_peft(tiny_model, tmp_path / "model", getattr(torch, dtype.value))
    merged = dict(adapter.float().merge_and_unload().named_parameters())
    assert pushed.keys() == merged.keys()
    assert all(torch.equal(value.float(), merged[name]) for name, value in pushed.items())
    moved = [name for name, value in Learner(config).policy.named_weights() if not value.equal(pushed[name])]
    assert len(moved) == 2 * len(LAYERS)


def test_the_merged_weights_compute_what_the_policy_does(tiny_model: Path) -> None:
    learner = taught(adapted(tiny_model), steps=5)
    merged = load_model(ModelConfig(path=str(tiny_model)), "cpu")
    merged.load_state_dict(weights(learner), strict=False)
    [row, *_] = rows_of()
    tokens = row["tokens", "full"][None]
    with torch.no_grad():
        torch.testing.assert_close(merged(tokens).logits, learner.policy.model(tokens).logits)


def test_the_base_model_is_the_reference_and_the_rows_need_not_carry_it(tiny_model: Path) -> None:
    config, rows = adapted(tiny_model), rows_of()
    for row in rows:
        del row[REFERENCE]
    learner = Learner(config)
    first, second = (learner.learn(rows, progress=0.0)["loss/kl"] for _ in range(2))
    assert first == pytest.approx(0, abs=1e-6) and second > 1e-6
    assert reads_reference(config) and not needs_reference(config)
    assert needs_reference(run_config(tiny_model, loss=config.loss))


def test_a_step_does_not_depend_on_micro_batches(tiny_model: Path) -> None:
    whole, cut = adapted(tiny_model), adapted(tiny_model)
    cut.micro_batch_tokens = 40
    one, other = Learner(whole), Learner(cut)
    for seed in range(2):
        steps = [learner.learn(rows_of(seed), progress=0.0) for learner in (one, other)]
    assert_same_step((steps[0], weights(one)), (steps[1], weights(other)))


def test_a_resumed_learner_goes_on_bit_for_bit(tiny_model: Path, tmp_path: Path) -> None:
    config = adapted(tiny_model)
    straight = taught(config)
    straight.save(tmp_path)
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"adapter_model.safetensors", "tokenizer.json"} <= files and "model.safetensors" not in files
    saved = load_file(tmp_path / "trainer_0.safetensors")
    assert {key.split("/", 1)[1] for key in saved} == straight.policy.trained.keys()
    resumed = Learner(config)
    resumed.load(tmp_path)
    ends = [learner.learn(rows_of(seed=2), progress=0.0) for learner in (straight, resumed)]
    assert ends[0] == ends[1]
    found = weights(resumed)
    assert all(torch.equal(value, found[name]) for name, value in weights(straight).items())


def test_two_saves_of_one_policy_are_equal_to_the_byte(tiny_model: Path, tmp_path: Path) -> None:
    learner = taught(adapted(tiny_model))
    for name in ("a", "b"):
        learner.save(tmp_path / name)
    for file in (tmp_path / "a" / "model").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / "model" / file.name).read_bytes()
    described = json.loads((tmp_path / "a" / "model" / "adapter_config.json").read_text())
    assert described["target_modules"] == sorted(LAYERS)
    assert described["base_model_name_or_path"] == str(tiny_model)


def test_a_restart_brings_the_first_adapters_back(tiny_model: Path) -> None:
    config = adapted(tiny_model)
    fresh, restarted = Learner(config), taught(config)
    restarted.restart()
    one, other = (learner.learn(rows_of(7), progress=0.0) for learner in (fresh, restarted))
    assert one == other
    found = weights(restarted)
    assert all(torch.equal(value, found[name]) for name, value in weights(fresh).items())


@pytest.mark.parametrize("targets", [["lm_head"], ["q_proj", "embed_tokens"], []])
def test_targets_that_are_no_linear_layers_of_the_decoder_are_refused(
    tiny_model: Path, targets: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"model\.lora\.targets names .* are down_proj, gate_proj"):
        Learner(adapted(tiny_model, targets))


def test_an_adapter_is_no_model_to_start_from(tiny_model: Path, tmp_path: Path) -> None:
    taught(adapted(tiny_model), steps=1).save(tmp_path)
    with pytest.raises(ConfigError, match=r"holds a LoRA adapter, .*scripts/export\.py"):
        model_folder(ModelConfig(path=str(tmp_path / "model")))
