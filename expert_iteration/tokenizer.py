"""The tokenizer, checked to give text back as it was."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from expert_iteration.config import ConfigError, ModelConfig, RunConfig
from expert_iteration.demo import MODEL_FOLDER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# the hub's library reads it once, when it is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

PROBE = "Tom has 12 apples,\n  and <b>half</b> of $3.50 -- naïve 数?"


def resolve_model(config: RunConfig) -> RunConfig:
    """The same run with `model.path` a folder or hub id: `demo` names the model shipped here."""
    if config.model.path != "demo":
        return config
    return replace(config, model=replace(config.model, path=str(MODEL_FOLDER)))


def load_tokenizer(config: ModelConfig) -> "PreTrainedTokenizerFast":
    """The model's own tokenizer.json, and nothing guessed from the model's type.

    `AutoTokenizer` may put a pre-tokenizer of its own in place of a custom one.

    Raises:
        ConfigError: there is no tokenizer, no end-of-sequence token, or text does not survive.
    """
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(
            config.path, revision=config.revision, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model.path ({config.path}) holds no tokenizer: {reason}") from error
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"model.path ({config.path}) has a tokenizer without an eos_token; name one in it.")
    if (back := tokenizer.decode(tokenizer.encode(PROBE, add_special_tokens=False))) != PROBE:
        raise ConfigError(
            f"model.path ({config.path}) has a tokenizer that turns {PROBE!r} into {back!r}; repair it."
        )
    return tokenizer
