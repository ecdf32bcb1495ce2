"""Hugging Face causal language models: loading them, and their log-probs of response tokens.

Shape suffixes: B rows, T padded length, N response tokens of all rows, H hidden size, V vocabulary.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from expert_iteration.batching import MicroBatch
from expert_iteration.config import ConfigError, ModelConfig
from expert_iteration.model_files import model_folder

SHARDS = "model.safetensors.index.json"
"""Which file holds which weight, in a folder with several."""

LOGITS_AT_ONCE = 2**28
"""Logits held in float32 at a time, 1 GiB."""


def load_model(config: ModelConfig, device: str | torch.device) -> PreTrainedModel:
    """The model of `config` on `device`, all weights trainable, in evaluation mode.

    Its dropout is zero in either mode: what is trained is exactly the policy that samples.

    Raises:
        ConfigError: the folder does not hold every weight of a causal language model whose code is
            part of transformers, or the model changes its logits after the output layer.
    """
    folder = model_folder(config)
    try:
        _refuse_shards_elsewhere(folder)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=_without_dropout(AutoConfig.from_pretrained(folder, trust_remote_code=False)),
            dtype=getattr(torch, config.dtype.value),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(
            f"model.path={config.path} cannot be loaded from {folder} ({_first_line(error)}); it must hold "
            "config.json and safetensors of a model known to transformers."
        ) from error
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise ConfigError(
            f"model.path={config.path} lacks {len(missing)} weights, such as {missing[0]}; "
            "they would be random. Give a complete model."
        )
    _own_memory(model)
    model.to(device)
    _check_head(model, config)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def _refuse_shards_elsewhere(folder: Path) -> None:
    """transformers follows the names of shards wherever they lead."""
    if (folder / SHARDS).is_file():
        names = json.loads((folder / SHARDS).read_text(encoding="utf-8"))["weight_map"].values()
        if strays := [name for name in names if Path(name).name != name]:
            raise ValueError(f"{SHARDS} names {strays[0]!r}, which is no file of this folder")


def _without_dropout(config: PreTrainedConfig) -> PreTrainedConfig:
    text = config.get_text_config()
    for name in text.to_dict():
        if "dropout" in name or "pdrop" in name:
            setattr(text, name, 0.0)
    return config


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _own_memory(model: PreTrainedModel) -> None:
    """Copy weights out of the file they are mapped from.

    There they are aligned by chance, which may change the last bit of a matrix product, and die with
    the file.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


@torch.no_grad()
def _check_head(model: PreTrainedModel, config: ModelConfig) -> None:
    """Refuse models whose logits are not those of their output layer (soft-capped or scaled)."""
    tokens = torch.arange(4, device=model.device)[None]
    theirs = model(input_ids=tokens, use_cache=False).logits
    ours = model.get_output_embeddings()(_hidden_states(model, tokens))
    if not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2):
        raise ConfigError(
            f"model.path={config.path}: {type(model).__name__} changes its logits after the output layer, "
            "which the learner does not reproduce; choose a model without soft-capping or logit scaling."
        )


def _hidden_states(model: PreTrainedModel, tokens_BT: Tensor) -> Tensor:
    # No attention mask: the padding is on the right, where causal attention never looks.
    return model.get_decoder()(input_ids=tokens_BT, use_cache=False).last_hidden_state


class ResponseScores(NamedTuple):
    """Of each response token of a micro-batch, in its order; float32, in nats."""

    logprobs_N: Tensor
    entropy_N: Tensor
    """Entropy of the distribution that the token was drawn from; carries no gradient."""


def response_log_probs(
    model: PreTrainedModel, batch: MicroBatch, autocast: bool = False, logits_at_once: int = LOGITS_AT_ONCE
) -> ResponseScores:
    """Score the response tokens of `batch`, which is on the device of `model`.

    The output layer is applied to response positions only, and its logits are cast to float32
    before the log-softmax. `autocast` computes in bfloat16. More logits than `logits_at_once` are
    computed in pieces, and again in the backward pass.
    """
    head = model.get_output_embeddings()
    with torch.autocast(batch.tokens_BT.device.type, torch.bfloat16, enabled=autocast):
        hidden_BTH = _hidden_states(model, batch.tokens_BT)
        predictor_N = batch.row_N * hidden_BTH.shape[1] + batch.position_N - 1
        hidden_NH = hidden_BTH.flatten(0, 1).index_select(0, predictor_N)
        target_N = batch.tokens_BT[batch.row_N, batch.position_N]
        rows = max(1, logits_at_once // head.weight.shape[0])
        if len(target_N) <= rows:
            return _score(head, hidden_NH, target_N)
        parts = [
            checkpoint(_score, head, hidden, target, use_reentrant=False)
            for hidden, target in zip(hidden_NH.split(rows), target_N.split(rows), strict=True)
        ]
    return ResponseScores(*(torch.cat(column) for column in zip(*parts, strict=True)))


class Scorer(torch.nn.Module):
    """`response_log_probs` as the forward pass of a module, which is where sharded weights come together."""

    def __init__(self, model: PreTrainedModel, autocast: bool) -> None:
        super().__init__()
        self.model = model
        self._autocast = autocast

    def forward(self, batch: MicroBatch) -> ResponseScores:
        logprobs_N, entropy_N = response_log_probs(self.model, batch, self._autocast)
        # a view that someone changes in place would lose what gathers the weights for the backward pass
        return ResponseScores(logprobs_N.clone(), entropy_N)


def _score(head: torch.nn.Module, hidden_NH: Tensor, target_N: Tensor) -> ResponseScores:
    logprobs_NV = head(hidden_NH).float().log_softmax(-1)
    logprobs_N = logprobs_NV.gather(-1, target_N[:, None]).squeeze(-1)
    with torch.no_grad():
        entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(-1)
    return ResponseScores(logprobs_N, entropy_N)
