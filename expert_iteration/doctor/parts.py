"""What can be read: configuration, model folder, tokenizer, templates. No weight is loaded."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from expert_iteration.checks import check
from expert_iteration.choices import Dtype
from expert_iteration.config import ConfigError, Member, ModelConfig, RunConfig, members_of
from expert_iteration.data.rendering import Renderer
from expert_iteration.doctor.finding import Finding, green, red
from expert_iteration.model_files import MODEL_FILES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXTS = (
    "  two spaces before, two after  ",
    "tabs\tand\n\nnewlines\r\n  of Windows",
    "\\frac{1}{2} \\boxed{x^2_1} $3.50 100% #### 72",
    "<think> <answer>-1,234.5e-6</answer> </think>",
    "naïve café, Ωmega, Привет, שלום, مرحبا, 数学 한국어",
    "emoji 👩‍🚀🏳️‍🌈, zero\u200bwidth, nb\u00a0space, ″quotes″ … −",
    "12345678901234567890 3.14159265358979 0x7f",
    "def f(x):\n    return {k: v for k, v in x.items()}  # code",
)
"""Texts that a tokenizer must give back as they were."""

QUESTION = "How many legs do 3 spiders have?"
MOMENTS = 2
"""Numbers that AdamW keeps for each weight."""


def configuration(config: RunConfig, laws: Callable[[RunConfig], object]) -> Finding:
    """What the door of a run says of `config`; `laws` derives the scheduler's numbers from it."""
    try:
        check(config)
        laws(config)
    except ConfigError as error:
        return red("configuration", str(error), "ERRORS.md has a row for it")
    return green("configuration", f"{config.algorithm.name} on {config.task.name}, {config.runtime.value}")


def local_folder(model: ModelConfig) -> Path | None:
    """Folder of a model that is on this machine, the hub's cache included; None: it has to be downloaded."""
    if Path(model.path).is_dir():
        return Path(model.path)
    try:
        found = snapshot_download(
            model.path, revision=model.revision, allow_patterns=list(MODEL_FILES), local_files_only=True
        )
    except (LocalEntryNotFoundError, ValueError):
        return None
    return Path(found)


def model(folder: Path) -> Finding:
    """Whether the folder holds a model that can be trusted: safetensors, and no code of its author."""
    remedy = "give a folder with config.json and safetensors of a model known to transformers"
    try:
        coded = [file.name for file in sorted(folder.glob("*config.json")) if "auto_map" in _json(file)]
        count = parameters(folder)
    except (OSError, ValueError, SafetensorError) as error:
        return red("model", f"{folder} cannot be read: {error}", remedy)
    if not (folder / "config.json").is_file() or not count:
        return red("model", f"{folder} lacks config.json or safetensors", remedy)
    if coded:
        cause = f"{folder / coded[0]} asks for code of its author (auto_map), which is never run"
        return red("model", cause, "choose a model known to transformers, or remove auto_map if it is one")
    return green("model", f"{count:,} weights in safetensors, no code ({folder})")


def _json(file: Path) -> Mapping[str, object]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def parameters(folder: Path) -> int:
    """Weights in the safetensors of a folder; only their headers are read."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "numpy") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total


def checkpoint_bytes(config: RunConfig, folder: Path) -> int | None:
    """Room for the checkpoints of a run: those that are kept, and the one that is being written.

    None: the weights in `folder` cannot be counted.
    """
    size = 2 if config.model.dtype is Dtype.bfloat16 else 4
    kept = config.checkpoint.keep_last + config.checkpoint.keep_best + 1
    try:
        return kept * parameters(folder) * size * (1 + MOMENTS)
    except (OSError, SafetensorError):
        return None


def tokenizer(loaded: "PreTrainedTokenizerFast", texts: Sequence[str] = TEXTS) -> Finding:
    """Text to tokens and back."""
    for text in texts:
        back = loaded.decode(
            loaded.encode(text, add_special_tokens=False), clean_up_tokenization_spaces=False
        )
        if back != text:
            return red("tokenizer", f"{text!r} comes back as {back!r}", "repair tokenizer.json of the model")
    end = loaded.convert_ids_to_tokens(loaded.eos_token_id)
    return green("tokenizer", f"{len(texts)} nasty texts come back as they were; answers end with {end}")


def templates(config: RunConfig, loaded: "PreTrainedTokenizerFast") -> Finding:
    """How the prompts of every dataset end, from where the response goes on."""
    endings = []
    for member in members_of(config.task):
        try:
            prompt = Renderer(member, loaded).prompt(QUESTION)
        except ConfigError as error:
            return red("templates", str(error), "ERRORS.md has a row for it")
        if problem := _bad_ending(member, prompt, loaded):
            return problem
        endings.append(f"{member.name} ends with {prompt[-24:]!r}")
    return green("templates", "; ".join(endings))


def _bad_ending(member: Member, prompt: str, loaded: "PreTrainedTokenizerFast") -> Finding | None:
    key = f"{member.key}.prompt"
    if QUESTION not in prompt:
        return red("templates", f"the prompt of {key} does not hold the question", "write {question} into it")
    if loaded.encode(prompt, add_special_tokens=False)[-1] == loaded.eos_token_id:
        cause = f"the prompt of {key} ends with end-of-sequence, after which a model says nothing"
        return red("templates", cause, "take it out of the chat template or of the prefix")
    if prompt.endswith((" ", "\t")):
        cause = (
            f"the prompt of {key} ends with {prompt[-12:]!r}: models start words with the space before them"
        )
        return red("templates", cause, "remove the space at the end of the template or of the prefix")
    stops = [stop for stop in member.dataset.prompt.stop if prompt.endswith(stop)]
    if stops:
        cause = f"the prompt of {key} ends with the stop string {stops[0]!r}"
        return red("templates", cause, f"remove it from {key}.stop or from the template")
    return None
