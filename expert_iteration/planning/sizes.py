"""What fits on a GPU of which size: the same arithmetic as a plan's, for ways to place a run on one of them.

LoRA and an engine that sleeps are assumptions of this table, for runs that have them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rich.console import Group, RenderableType
from rich.text import Text

from expert_iteration.choices import Device, Dtype
from expert_iteration.config import RunConfig
from expert_iteration.planning.memory import GIB, SIZE, cache_bytes_per_token, processes
from expert_iteration.planning.shapes import Shape
from expert_iteration.planning.tables import numbers

SIZES = (16, 24, 48, 80, 141)
"""GiB of a GPU."""
USABLE = 0.95
"""Share of it: the driver, fragments and other libraries take the rest."""
RANK = 16
"""Of LoRA's adapters, at all seven projections of a layer."""
SEQUENCES = 32
"""Answers of model.max_length that the KV cache is to hold."""
RESTING = ("weights", "moments", "other")
"""What a trainer keeps on its GPU while it does not learn."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that the parts of a run take on one GPU."""

    learning: int
    """The trainer in an optimizer step."""
    resting: int
    """Between two of them."""
    engine: int
    """Awake; asleep it takes nothing."""
    reference: int
    """While it scores."""
    frozen: int
    """Its weights."""

    @property
    def ways(self) -> dict[str, int]:
        """Bytes at the peak, by how the GPU is used."""
        resting, engine = self.resting, self.engine
        asleep = max(self.learning, resting + engine)
        return {
            "the trainer alone": self.learning,
            "and an engine, always awake": self.learning + engine,
            "and an engine, asleep while the trainer learns": asleep,
            "the same, and a reference": max(
                self.learning + self.frozen, resting + engine + self.frozen, resting + self.reference
            ),
            "the same, the reference on the host between scores": max(asleep, resting + self.reference),
        }


def footprint(config: RunConfig, shape: Shape, adapters: int | None = None) -> Footprint:
    """Of a run on one GPU.

    Args:
        adapters: elements that LoRA trains, in float32 beside weights in bfloat16; None: all are trained.
    """
    one = _on_one_gpu(config if adapters is None else _frozen(config))
    # a term of KL makes room for a reference
    scored = replace(one, loss=replace(one.loss, kl_coefficient=1.0))
    trainer, engine, reference = (process.parts for process in processes(scored, shape, None))
    if adapters is not None:
        trained = adapters * SIZE[Dtype.float32]
        trainer |= {"gradients": trained, "moments": 2 * trained, "weights": trainer["weights"] + trained}
    cache = SEQUENCES * config.model.max_length * cache_bytes_per_token(shape, one)
    return Footprint(
        learning=sum(trainer.values()),
        resting=sum(trainer[name] for name in RESTING),
        engine=sum(engine.values()) + cache,
        reference=sum(reference.values()),
        frozen=reference["weights"],
    )


def adapter_elements(shape: Shape, rank: int = RANK) -> int:
    """Each projection from m to n elements gets two matrices, m x rank and rank x n."""
    attention = 2 * (shape.hidden + shape.queries) + 2 * (shape.hidden + shape.keys)
    return rank * shape.layers * (attention + 3 * (shape.hidden + shape.intermediate))


def table(models: Mapping[str, tuple[RunConfig, Shape]]) -> RenderableType:
    """For each model and way the GiB it takes, and on which GPUs there are as many."""
    found = numbers("", "GiB", *(str(size) for size in SIZES), left=1)
    for name, (config, shape) in models.items():
        for training, adapters in (("full", None), (f"LoRA, rank {RANK}", adapter_elements(shape))):
            found.add_row(f"{name}, {training}")
            for way, needed in _told(footprint(config, shape, adapters), adapters is not None).items():
                fits = ["yes" if needed <= USABLE * size * GIB else "-" for size in SIZES]
                found.add_row(f"  {way}", f"{needed / GIB:,.1f}", *fits)
    config = next(iter(models.values()))[0]
    note = (
        f"For micro-batches of {config.micro_batch_tokens:,} tokens and a KV cache of {SEQUENCES} sequences "
        f"of model.max_length; {USABLE:.0%} of a GPU count. LoRA and sleep are assumed, be they there "
        "or not. Activations and logits are estimates; no GPU has confirmed them."
    )
    return Group(found, Text(note, style="dim"))


def _told(found: Footprint, with_adapters: bool) -> dict[str, int]:
    """Without its adapters the trained model is the reference, which then takes no room."""
    ways = found.ways
    if with_adapters:
        shared = ways["and an engine, asleep while the trainer learns"]
        ways = {way: needed for way, needed in ways.items() if "reference" not in way}
        ways["the same, the adapters off for reference scores"] = shared
    return ways


def _on_one_gpu(config: RunConfig) -> RunConfig:
    place = config.placement
    infer = replace(place.infer, replicas=1, tensor_parallel=1)
    one = replace(
        place,
        device=Device.cuda,
        shared=True,
        train=replace(place.train, devices=1),
        infer=infer,
        reference=replace(place.reference, devices=1),
    )
    return replace(config, placement=one)


def _frozen(config: RunConfig) -> RunConfig:
    return replace(config, model=replace(config.model, dtype=Dtype.bfloat16, autocast=False))
