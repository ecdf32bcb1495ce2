"""Log-probs of response tokens, and models that are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tensordict import TensorDict
from transformers import PreTrainedModel

from expert_iteration.batching import (
    ADVANTAGE,
    POLICY_VERSION,
    RESPONSE,
    SAMPLED,
    TOKENS,
    MicroBatch,
    empty_micro_batch,
    micro_batches,
)
from expert_iteration.choices import Dtype
from expert_iteration.config import ConfigError, ModelConfig
from expert_iteration.model import ResponseScores, load_model, response_log_probs


def rows_of(lengths: list[tuple[int, int]]) -> list[TensorDict]:
    """Random rows of (prompt, response) lengths; the pad id 0 is among their tokens."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for prompt, response in lengths:
        length = prompt + response
        tokens = torch.randint(0, 50, (length,), generator=generator)
        tokens[-1] = 0
        mask = torch.arange(length) >= prompt
        rows.append(
            TensorDict(
                {
                    TOKENS: tokens,
                    RESPONSE: mask,
                    SAMPLED: -mask.float(),
                    ADVANTAGE: torch.tensor(1.0),
                    POLICY_VERSION: torch.tensor(0),
                }
            )
        )
    return rows


def config(folder: Path, dtype: Dtype = Dtype.float32, checkpointing: bool = False) -> ModelConfig:
    return ModelConfig(path=str(folder), dtype=dtype, gradient_checkpointing=checkpointing)


@pytest.fixture
def batch() -> MicroBatch:
    return micro_batches(rows_of([(3, 4), (5, 9), (2, 1), (4, 0)]), 1000)[0]


def naive_logprobs(model: PreTrainedModel, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs and entropy of response tokens from all logits of each row alone, unpadded."""
    picked, entropy = [], []
    for b, length in enumerate(batch.lengths_B.tolist()):
        tokens_T = batch.tokens_BT[b, :length]
        logprobs_TV = model(input_ids=tokens_T[None]).logits[0].float().log_softmax(-1)
        at = batch.position_N[batch.row_N == b]
        picked.append(logprobs_TV[at - 1, tokens_T[at]])
        entropy.append(torch.special.entr(logprobs_TV[at - 1].exp()).sum(-1))
    return torch.cat(picked), torch.cat(entropy)


def test_an_empty_micro_batch_reaches_every_weight_and_moves_none(tiny_model: Path) -> None:
    model = load_model(config(tiny_model), "cpu").train()
    scores = response_log_probs(model, empty_micro_batch())
    assert scores.logprobs_N.shape == (0,)
    scores.logprobs_N.sum().backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())


def test_response_log_probs_equal_those_of_the_full_logits(tiny_model: Path, batch: MicroBatch) -> None:
    model = load_model(config(tiny_model), "cpu")
    scores = response_log_probs(model, batch)
    logprobs_N, entropy_N = naive_logprobs(model, batch)
    torch.testing.assert_close(scores.logprobs_N, logprobs_N)
    torch.testing.assert_close(scores.entropy_N, entropy_N)
    assert scores.logprobs_N.requires_grad and not scores.entropy_N.requires_grad


def gradients(scores: ResponseScores, model: PreTrainedModel) -> list[torch.Tensor]:
    return list(torch.autograd.grad(scores.logprobs_N.sum(), list(model.parameters())))


def test_logits_in_pieces_give_the_same_scores_and_gradient(tiny_model: Path, batch: MicroBatch) -> None:
    model = load_model(config(tiny_model), "cpu")
    whole = response_log_probs(model, batch)
    pieces = response_log_probs(model, batch, logits_at_once=4 * model.config.vocab_size)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(gradients(pieces, model), gradients(whole, model))


def test_gradient_checkpointing_gives_the_same_gradient(tiny_model: Path, batch: MicroBatch) -> None:
    plain = load_model(config(tiny_model), "cpu").train()
    recomputing = load_model(config(tiny_model, checkpointing=True), "cpu").train()
    assert recomputing.is_gradient_checkpointing
    torch.testing.assert_close(
        gradients(response_log_probs(recomputing, batch), recomputing),
        gradients(response_log_probs(plain, batch), plain),
    )


def test_dropout_is_off_while_training(tiny_model: Path, tmp_path: Path, batch: MicroBatch) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attention_dropout": 0.5}))
    model = load_model(config(tmp_path / "model"), "cpu").train()
    first, second = (response_log_probs(model, batch).logprobs_N for _ in range(2))
    assert torch.equal(first, second)


def test_log_probs_are_float32_whatever_the_model_computes_in(tiny_model: Path, batch: MicroBatch) -> None:
    exact = response_log_probs(load_model(config(tiny_model), "cpu"), batch).logprobs_N
    autocast = response_log_probs(load_model(config(tiny_model), "cpu"), batch, autocast=True).logprobs_N
    low = response_log_probs(load_model(config(tiny_model, Dtype.bfloat16), "cpu"), batch).logprobs_N
    assert autocast.dtype == low.dtype == torch.float32
    torch.testing.assert_close(autocast, exact, rtol=0.02, atol=0.02)
    torch.testing.assert_close(low, exact, rtol=0.02, atol=0.02)


def test_weights_do_not_stay_mapped_to_the_file_they_came_from(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    model = load_model(config(folder), "cpu")
    before = [parameter.clone() for parameter in model.parameters()]
    file = folder / "model.safetensors"
    with file.open("r+b") as opened:
        opened.write(bytes(file.stat().st_size))
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def assert_refused(folder: Path, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        load_model(config(folder), "cpu")
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


def test_a_missing_folder_is_named_in_one_line(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nothing", "neither a folder nor a model")


def test_a_folder_without_a_model_is_named_in_one_line(tmp_path: Path) -> None:
    assert_refused(tmp_path, "cannot be loaded")


def test_a_truncated_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert_refused(tmp_path / "model", "cannot be loaded")


def test_a_model_with_a_missing_weight_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    save_file({name: weights[name].clone() for name in weights if "norm" not in name}, file, {"format": "pt"})
    assert_refused(tmp_path / "model", "lacks .* weights")


def test_a_model_that_asks_for_its_own_code_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    settings = json.loads(file.read_text()) | {
        "model_type": "homemade",
        "auto_map": {"AutoConfig": "homemade.Config", "AutoModelForCausalLM": "homemade.Model"},
    }
    file.write_text(json.dumps(settings))
    assert_refused(tmp_path / "model", "cannot be loaded")


def test_a_model_that_caps_its_logits_is_refused(tmp_path: Path) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    settings = Gemma2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=0.1,
        initializer_range=1.0,
    )
    Gemma2ForCausalLM(settings).save_pretrained(tmp_path)
    assert_refused(tmp_path, "changes its logits")
