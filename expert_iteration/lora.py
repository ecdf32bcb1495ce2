"""Low-rank adapters (LoRA, arXiv 2106.09685) of peft: put into a model, merged on the way out, saved.

A linear layer with the weight W of the base model computes with W + alpha / rank * B A. B is zero at first,
so that the policy begins as the base model, which stays at hand: it is the model without its adapters.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from expert_iteration.config import ConfigError, ModelConfig
from expert_iteration.sharding import put, whole

if TYPE_CHECKING:
    from peft import LoraConfig

WEIGHTS = "adapter_model.safetensors"
NAME = ".default"
"""What peft calls an adapter that has no name of its own, as part of the names of its weights."""
PREFIX = "base_model.model."
"""Of the names in a file."""


def add_adapters(model: PreTrainedModel, config: ModelConfig, seed: int) -> "LoraConfig":
    """Give linear layers of the decoder adapters in float32: the only weights that are trained from now on.

    Returns:
        how peft describes them.

    Raises:
        ConfigError: `model.lora.targets` names something else.
    """
    import peft

    there = sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.get_decoder().named_modules()
            if isinstance(module, nn.Linear)
        }
    )
    targets = sorted(there if config.lora.targets is None else config.lora.targets)
    strays = [name for name in targets if name not in there]
    if strays or not targets:
        raise ConfigError(
            f"model.lora.targets names {strays[0] if strays else 'nothing'}, but the linear layers of "
            f"{config.path} are {', '.join(there)}; choose among them, or null for all."
        )
    description = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=0.0,
        target_modules=targets,
        base_model_name_or_path=_place_of(config),
        revision=config.revision,
    )
    peft.get_peft_model(model, description)
    description.target_modules = targets  # peft keeps a set, which is written in another order each time
    reset_adapters(model, seed)
    return description


def _place_of(config: ModelConfig) -> str:
    """Where others find the base model, whatever folder they start in."""
    return str(Path(config.path).resolve()) if Path(config.path).is_dir() else config.path


def adapters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights A and B of every adapter, by name."""
    return {name: weight for name, weight in model.named_parameters() if ".lora_" in name}


def reset_adapters(model: nn.Module, seed: int) -> None:
    """Draw each A anew, as peft does (He et al. 2015, arXiv 1502.01852), and make each B zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in adapters(model).items():
        value = torch.zeros(weight.shape)
        if ".lora_A." in name:
            nn.init.kaiming_uniform_(value, a=math.sqrt(5), generator=generator)
        put(weight, value)


def without_adapters(model: nn.Module) -> AbstractContextManager[None]:
    """Within the block, `model` is its base model.

    peft's own switch turns `requires_grad` off and on, which weights that are gathered meanwhile would miss.
    """
    from peft.helpers import rescale_adapter_scale

    return rescale_adapter_scale(model, 0.0)


@torch.no_grad()
def merged(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Each weight of the base model by its own name, with its adapter in it (then in float32), one at a time.

    With sharded weights every rank must read it.
    """
    weights = dict(model.named_parameters())
    for name, weight in weights.items():
        if ".lora_" in name:
            continue
        layer = name.removesuffix(".base_layer.weight")
        value = whole(weight.detach())
        if layer != name:
            a, b = (whole(weights[f"{layer}.lora_{part}{NAME}.weight"].detach()) for part in "AB")
            scaling = model.get_submodule(layer).scaling[NAME[1:]]  # type: ignore[index]
            value = value.float() + (b.float() @ a.float()) * scaling
        yield name.replace(".base_layer.", "."), value


def save_adapters(model: nn.Module, description: "LoraConfig", folder: Path, rank: int) -> None:
    """Write what `peft.PeftModel.from_pretrained` reads. The first rank does; all must call it if sharded."""
    weights = {_in_file(name): whole(weight.detach()) for name, weight in adapters(model).items()}
    if rank > 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    description.save_pretrained(str(folder))
    save_file({name: weight.cpu() for name, weight in weights.items()}, folder / WEIGHTS, {"format": "pt"})


def load_adapters(model: nn.Module, folder: Path) -> None:
    """Bring back what `save_adapters` wrote of a model with the same adapters."""
    saved = load_file(folder / WEIGHTS)
    for name, weight in adapters(model).items():
        put(weight, saved[_in_file(name)])


def _in_file(name: str) -> str:
    return PREFIX + name.replace(NAME, "")
