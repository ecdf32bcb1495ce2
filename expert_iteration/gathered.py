"""A Hugging Face folder of a sharded model, written piece by piece: no process ever holds all of it."""

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from expert_iteration.model import SHARDS

WHOLE = "model.safetensors"
PIECE_BYTES = 2 * 2**30
"""Weights that the writing rank holds at a time."""


def save_gathered(
    model: PreTrainedModel,
    weights: Iterable[tuple[str, Tensor]],
    folder: Path,
    rank: int,
    piece_bytes: int = PIECE_BYTES,
) -> None:
    """Write `weights` of `model` as `save_pretrained` would.

    Args:
        weights: every weight of the model in its order, whole; gathered by all ranks as they are read.
        rank: the first one writes, the others only read.
    """
    if rank > 0:
        for _ in weights:
            pass
        return
    folder.mkdir(parents=True)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    remaining = iter(weights)
    pieces = _pieces(model, piece_bytes)
    place: dict[str, str] = {}
    for number, names in enumerate(pieces, 1):
        piece = {name: weight.cpu().contiguous() for name, weight in islice(remaining, len(names))}
        assert list(piece) == names, "weights in another order than those of the model"
        file = WHOLE if len(pieces) == 1 else f"model-{number:05d}-of-{len(pieces):05d}.safetensors"
        save_file(piece, folder / file, {"format": "pt"})
        place |= dict.fromkeys(piece, file)
    if len(pieces) > 1:
        size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        index = {"metadata": {"total_size": size}, "weight_map": place}
        (folder / SHARDS).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _pieces(model: PreTrainedModel, piece_bytes: int) -> list[list[str]]:
    """Names of the weights by the file they go to; a weight that is larger than a piece has one to itself."""
    pieces: list[list[str]] = []
    room = 0
    for name, weight in model.named_parameters():
        size = weight.numel() * weight.element_size()
        if not pieces or size > room:
            pieces.append([])
            room = piece_bytes
        pieces[-1].append(name)
        room -= size
    return pieces
