"""What fits on a GPU of which size: the arithmetic of a plan, for ways to place a run on one of them."""

from collections.abc import Mapping
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.text import Text

from expert_iteration.choices import Device, Dtype
from expert_iteration.config import ModeConfig, RunConfig
from expert_iteration.planning.memory import GIB, Process, cache_bytes_per_token, processes
from expert_iteration.planning.shapes import Shape
from expert_iteration.planning.sharing import fullest
from expert_iteration.planning.tables import numbers

SIZES = (16, 24, 48, 80, 141)
"""GiB of a GPU."""
USABLE = 0.95
"""Share of it: the driver, fragments and other libraries take the rest."""
RANK = 16
"""Of the adapters of a run that names no rank itself."""
SEQUENCES = 32
"""Answers of model.max_length that the KV cache is to hold."""


def ways(config: RunConfig, shape: Shape) -> dict[str, int]:
    """Bytes that a synchronous run takes at its fullest moment, by how it uses its one GPU.

    Without its adapters a trained model is the reference, which then takes no room of its own.
    """
    alone = fullest(*_placed(config, shape, "trainer"))
    awake = fullest(*_placed(config, shape, "trainer", "collector"))
    asleep = fullest(*_placed(config, shape, "trainer", "collector", sleep_level=1))
    found = {
        "the trainer alone": alone,
        "and an engine, always awake": awake,
        "and an engine, asleep while the trainer learns": asleep,
    }
    if config.model.lora.rank:
        return found | {"the same, the adapters off for reference scores": asleep}
    every = ("trainer", "collector", "reference")
    return found | {
        "the same, and a reference": fullest(*_placed(config, shape, *every, sleep_level=1)),
        "the same, the reference on the host while the trainer learns": fullest(
            *_placed(config, shape, *every, sleep_level=1, offload=True)
        ),
    }


def _placed(
    config: RunConfig, shape: Shape, *roles: str, sleep_level: int = 0, offload: bool = False
) -> tuple[RunConfig, list[Process]]:
    """The run on one GPU, and those of its processes that play a part."""
    place = config.placement
    one = replace(
        config,
        mode=ModeConfig(),
        # a term of KL makes room for a reference
        loss=replace(config.loss, kl_coefficient=1.0),
        placement=replace(
            place,
            device=Device.cuda,
            shared=True,
            nodes=1,
            train=replace(place.train, devices=1),
            infer=replace(place.infer, replicas=1, tensor_parallel=1, sleep_level=sleep_level),
            reference=replace(place.reference, devices=1, offload=offload),
        ),
    )
    found = [one for one in processes(one, shape, None) if one.name.split()[0] in roles]
    for process in found:
        if process.name.startswith("collector"):
            process.parts["KV cache"] = (
                SEQUENCES * config.model.max_length * cache_bytes_per_token(shape, one)
            )
    return one, found


def table(models: Mapping[str, tuple[RunConfig, Shape]]) -> RenderableType:
    """For each model and way the GiB it takes, and on which GPUs there are as many."""
    found = numbers("", "GiB", *(str(size) for size in SIZES), left=1)
    for name, (config, shape) in models.items():
        adapted = with_adapters(config)
        for training, run in (("full", in_full(config)), (f"LoRA, rank {adapted.model.lora.rank}", adapted)):
            found.add_row(f"{name}, {training}")
            for way, needed in ways(run, shape).items():
                fits = ["yes" if needed <= USABLE * size * GIB else "-" for size in SIZES]
                found.add_row(f"  {way}", f"{needed / GIB:,.1f}", *fits)
    config = next(iter(models.values()))[0]
    note = (
        f"For mode=sync, micro-batches of {config.micro_batch_tokens:,} tokens and a KV cache of {SEQUENCES} "
        f"sequences of model.max_length; {USABLE:.0%} of a GPU count. Keys: placement=one_gpu, "
        "model.lora.rank, placement.infer.sleep_level, placement.reference.offload. Activations and logits "
        "are estimates; no GPU has confirmed them."
    )
    return Group(found, Text(note, style="dim"))


def in_full(config: RunConfig) -> RunConfig:
    """The run that trains all weights."""
    return replace(config, model=replace(config.model, lora=replace(config.model.lora, rank=0)))


def with_adapters(config: RunConfig) -> RunConfig:
    """The run that trains adapters beside weights in bfloat16."""
    lora = replace(config.model.lora, rank=config.model.lora.rank or RANK)
    return replace(config, model=replace(config.model, lora=lora, dtype=Dtype.bfloat16, autocast=False))
