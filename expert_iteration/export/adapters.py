"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685) as peft writes them, and the models they are part of."""

import json
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from expert_iteration.config import ConfigError, ModelConfig
from expert_iteration.lora import WEIGHTS
from expert_iteration.model import load_model
from expert_iteration.model_files import ADAPTER, copy_tokenizer, model_folder


def merge_adapter(adapter: Path, folder: Path) -> None:
    """Write the base model with the adapter merged into it, in float32, as a Hugging Face folder.

    The tokenizer is the adapter's where it has one, else that of the base model.

    Raises:
        ConfigError: the base model or the adapter cannot be loaded, or the adapter lacks weights.
    """
    base = _base_of(adapter)
    model: Any = load_model(base, "cpu")
    try:
        with safe_open(adapter / WEIGHTS, "pt") as file:
            present = set(file.keys())
        adapted = PeftModel.from_pretrained(model, str(adapter))
        expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"{adapter} is no adapter of {base.path} ({reason}); its {ADAPTER} must name the model that it "
            "was trained on."
        ) from error
    if missing := sorted(expected - present):
        raise ConfigError(
            f"{adapter} lacks {len(missing)} weights, such as {missing[0]}; give a complete adapter."
        )
    adapted.merge_and_unload().save_pretrained(folder)
    source = adapter if (adapter / "tokenizer.json").is_file() else model_folder(base)
    copy_tokenizer(source, folder)


def _base_of(adapter: Path) -> ModelConfig:
    try:
        config = json.loads((adapter / ADAPTER).read_text(encoding="utf-8"))
        base, kind = Path(config["base_model_name_or_path"]), config["peft_type"]
        revision = config.get("revision")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{adapter / ADAPTER} names no base model ({type(error).__name__}); write it there as "
            "base_model_name_or_path."
        ) from error
    if kind != "LORA":
        raise ConfigError(f"{adapter} is an adapter of kind {kind}; only those of kind LORA are merged.")
    return ModelConfig(path=str(base), revision=revision)
