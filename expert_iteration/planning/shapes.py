"""How large a model is, by the numbers of its config.json alone.

For the families whose layers are those of Llama: grouped-query attention, a gated MLP, RMS norms.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expert_iteration.config import ConfigError, ModelConfig

KNOWN = Path(__file__).parent / "known_models.json"
"""Shapes of the models of config/model, for machines that have not downloaded them."""
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder. Biases count as parts of a projection."""

    family: str
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    """The output layer is the embedding."""
    query_bias: bool
    """Of the projections to queries, keys and values."""
    output_bias: bool
    """Of the projection after the attention."""
    mlp_bias: bool
    query_norm: bool
    """Queries and keys are normalised by head (Qwen3)."""

    @property
    def queries(self) -> int:
        """Elements of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Elements of all key heads, and as many of the values."""
        return self.kv_heads * self.head_dim

    @property
    def embedding(self) -> int:
        """Elements of the largest tensor."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Elements; a tied output layer counts once."""
        return self.embedding * (1 if self.tied else 2) + self.layers * self.layer + self.hidden

    def adapters(self, rank: int, targets: Sequence[str] | None = None) -> int:
        """Elements of low-rank adapters for these linear layers of the decoder; None: for all."""
        ends = {
            "q_proj": self.hidden + self.queries,
            "k_proj": self.hidden + self.keys,
            "v_proj": self.hidden + self.keys,
            "o_proj": self.queries + self.hidden,
            "gate_proj": self.hidden + self.intermediate,
            "up_proj": self.hidden + self.intermediate,
            "down_proj": self.intermediate + self.hidden,
        }
        return self.layers * rank * sum(ends.get(name, 0) for name in (ends if targets is None else targets))

    @property
    def tensors(self) -> int:
        """Tensors that all weights are."""
        per_layer = 9 + 3 * self.query_bias + self.output_bias + 3 * self.mlp_bias + 2 * self.query_norm
        return self.layers * per_layer + (2 if self.tied else 3)

    @property
    def layer(self) -> int:
        """Elements of one layer."""
        wide = self.queries + 2 * self.keys
        attention = self.hidden * wide + self.queries * self.hidden
        attention += self.query_bias * wide + self.output_bias * self.hidden
        mlp = 3 * self.hidden * self.intermediate + self.mlp_bias * (2 * self.intermediate + self.hidden)
        return attention + mlp + 2 * self.hidden + self.query_norm * 2 * self.head_dim


@dataclass(frozen=True)
class Found:
    """A shape and where it was read, or why there is none."""

    shape: Shape | None
    origin: str


def shape_of(model: ModelConfig) -> Found:
    """The shape of `model.path`: from its folder, the hub's cache, or the table of known models.

    Raises:
        ConfigError: the folder holds no config.json that can be read.
    """
    folder = Path(model.path)
    if folder.is_dir():
        return _of_file(folder / "config.json")
    for file in _cached(model):
        return _of_file(file)
    known = json.loads(KNOWN.read_text(encoding="utf-8"))["models"]
    if model.path in known:
        return Found(read_shape(known[model.path]), KNOWN.name)
    return Found(
        None,
        f"{model.path} is neither a folder, nor in the hub's cache, nor in {KNOWN.name}: "
        f"`hf download {model.path} config.json` fetches its numbers",
    )


def _of_file(file: Path) -> Found:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it is no object")
        shape = read_shape(values)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"model.path ({file.parent}) has no config.json that can be read ({type(error).__name__}: "
            f"{error}); give the folder of a complete model."
        ) from None
    if shape is None:
        return Found(None, f"{values.get('model_type')!r} is none of {', '.join(FAMILIES)}")
    return Found(shape, str(file))


def read_shape(values: Mapping[str, Any]) -> Shape | None:
    """What a config.json says, with the defaults of transformers; None for a family of another shape.

    Raises:
        KeyError: a size is missing.
    """
    family = values.get("model_type", "")
    if family not in FAMILIES:
        return None
    heads = values["num_attention_heads"]
    bias = bool(values.get("attention_bias", False))
    usual = 128 if family == "qwen3" else values["hidden_size"] // heads
    return Shape(
        family=family,
        vocabulary=values["vocab_size"],
        hidden=values["hidden_size"],
        intermediate=values["intermediate_size"],
        layers=values["num_hidden_layers"],
        heads=heads,
        kv_heads=values.get("num_key_value_heads") or heads,
        head_dim=values.get("head_dim") or usual,
        tied=bool(values.get("tie_word_embeddings", False)),
        query_bias=bias or family == "qwen2",
        output_bias=bias,
        mlp_bias=bool(values.get("mlp_bias", False)),
        query_norm=family == "qwen3",
    )


def _cached(model: ModelConfig) -> list[Path]:
    """config.json of a model of the hub that was downloaded here; the revision asked for, else any."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    snapshots = hub / f"models--{model.path.replace('/', '--')}" / "snapshots"
    return sorted(snapshots.glob(f"{model.revision or '*'}/config.json"))
