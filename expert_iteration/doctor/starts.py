"""What takes long: Ray and vLLM start as a run starts them, and the engine is held against the trainer."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from expert_iteration.choices import Device, Runtime
from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.doctor.finding import Finding, green, red, skipped
from expert_iteration.doctor.parts import TEXTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from expert_iteration.doctor.subjects import Batch

LONG_PROMPT = 400
"""Tokens of the longest prompt: three blocks of the prefix cache on CPU."""
SHARED_FRACTION = 0.5
"""Of a GPU's memory that the engine takes at most here, where the trainer's model stands beside it."""
FAILS_BY = (ImportError, OSError, RuntimeError, ValueError)
"""How starting a library goes wrong; TimeoutError is an OSError and ConfigError a ValueError."""
SEE = "the log has its own words"


def ray(config: RunConfig) -> Finding:
    if config.runtime is Runtime.local:
        return skipped("ray", "runtime=local needs none")
    from expert_iteration.actors.trial import try_ray

    try:
        return green("ray", try_ray(config))
    except FAILS_BY as error:
        return red("ray", f"it does not start: {error}", f"{SEE}; placement=local does without Ray")


def engine_and_trainer(
    config: RunConfig, folder: Path, tokenizer: "PreTrainedTokenizerFast"
) -> Iterator[Finding]:
    """vLLM's start, then every check of mismatch.py. `config.model.path` is no short name any more."""
    from expert_iteration.doctor.mismatch import CHECKS, examine
    from expert_iteration.doctor.policy import TrainedPolicy
    from expert_iteration.engine import Engine

    config = _side_by_side(config)
    try:
        policy = TrainedPolicy(config, tokenizer.eos_token_id)
        engine = Engine(config.model, config.placement, config.seed, config.wait_limit)
    except FAILS_BY as error:
        remedy = str(error) if isinstance(error, ConfigError) else SEE
        yield red("vllm", f"it does not start: {error}", remedy)
        yield from (skipped(check, "vLLM did not start") for check in CHECKS)
        return
    with closing(engine):
        yield green("vllm", f"{config.model.engine_dtype.value} on {config.placement.device.value}")
        yield from examine(engine, policy, batch_of(config, folder, tokenizer))


def _side_by_side(config: RunConfig) -> RunConfig:
    """The trainer's model gets its room on the engine's GPU."""
    infer = config.placement.infer
    if config.placement.device is Device.cpu:
        return config
    room = replace(infer, memory_fraction=min(infer.memory_fraction, SHARED_FRACTION))
    return replace(config, placement=replace(config.placement, infer=room))


def batch_of(config: RunConfig, folder: Path, tokenizer: "PreTrainedTokenizerFast") -> "Batch":
    """The fixed batch: TEXTS, and one prompt that is long."""
    import torch

    from expert_iteration.agreement import limit_of
    from expert_iteration.doctor.mismatch import MAX_TOKENS
    from expert_iteration.doctor.subjects import Batch

    room = min(LONG_PROMPT, config.model.max_length - MAX_TOKENS)
    short = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    long = [token for ids in short for token in ids]
    long *= -(-room // len(long))
    return Batch(
        prompts=[tuple(ids[:room]) for ids in (*short, long)],
        ends=ends_of(folder, tokenizer.eos_token_id),
        pad=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        limit=limit_of(config),
        dtype=getattr(torch, config.model.engine_dtype.value),
        wait_limit=config.wait_limit,
    )


def ends_of(folder: Path, eos: int) -> frozenset[int]:
    """Tokens that end a response: the tokenizer's own, and those of generation_config.json."""
    file = folder / "generation_config.json"
    named = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
    return frozenset([eos, *(named if isinstance(named, list) else [] if named is None else [named])])
