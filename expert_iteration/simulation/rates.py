"""How long the parts of a run take: computed from a data sheet here, fitted to a run in calibration.py."""

from dataclasses import dataclass

from expert_iteration.choices import Dtype
from expert_iteration.config import RunConfig
from expert_iteration.planning.memory import PROMPT_TOKENS, SIZE, cache_bytes_per_token, push_bytes
from expert_iteration.planning.shapes import Shape
from expert_iteration.simulation.hardware import NODE, Accelerator, Assumptions, broadcast_hops
from expert_iteration.simulation.lengths import Lengths

FORWARD, BACKWARD = 2, 4
"""Floating-point operations of each parameter at each position; those of attention scores are left out."""
ADAM_PASSES = 7
"""Times that AdamW reads or writes a value as large as a weight: weight, gradient, two moments."""
GIB = 2**30


@dataclass(frozen=True)
class Rates:
    """Seconds, unless something else is said."""

    step: float
    """Of a decode step, whatever the batch: host and weights."""
    answer: float
    """That each answer in the batch adds to a decode step: its KV cache is read."""
    floor: float
    """Of a decode step for each answer in the batch at least: its operations."""
    prompt: float
    """That each prompt stops the engine for: prefill."""
    room: int
    """Answers that an engine can hold at once."""
    judge: float
    """Of the collector for each training answer, beside the engine."""
    score: float
    """Of a reference for each position of a row."""
    learn: float
    """Of an optimizer step, whatever its size."""
    position: float
    """That each position of the largest shard adds to an optimizer step."""
    order: float
    """Of an order, until it is answered, beside the work itself."""
    publish: float
    """Of a push, for which trainer and engines stop."""
    save: float
    """Of a checkpoint."""
    prompt_tokens: float
    """Positions of a prompt, not seconds."""

    def decode(self, batch: int) -> float:
        """A decode step of so many answers."""
        return max(self.step + self.answer * batch, self.floor * batch)


def datasheet_rates(
    config: RunConfig, shape: Shape, gpu: Accelerator, lengths: Lengths, given: Assumptions
) -> Rates:
    """Rates of a run whose processes have `gpu` each (an engine: as many as its tensor_parallel)."""
    parts = config.placement.infer.tensor_parallel
    bandwidth = gpu.bandwidth * given.bandwidth
    weights = shape.parameters * SIZE[config.model.engine_dtype] / parts
    context = (PROMPT_TOKENS + lengths.mean / 2) * cache_bytes_per_token(shape, config)
    sampled = FORWARD * shape.parameters / parts / (_peak(gpu, config.model.engine_dtype) * given.sampling)
    return Rates(
        step=given.engine_step + weights / bandwidth,
        answer=context / bandwidth,
        floor=sampled,
        prompt=PROMPT_TOKENS * sampled,
        room=_room(config, shape, gpu, lengths, weights),
        judge=given.answer,
        score=FORWARD * shape.parameters / (_trained_peak(config, gpu) * given.training),
        learn=given.optimizer_step + _update(config, shape, gpu, given),
        position=_passes(config) * shape.parameters / (_trained_peak(config, gpu) * given.training),
        order=given.order,
        publish=_publish(config, shape, gpu, given),
        save=3 * shape.parameters * SIZE[config.model.dtype] / given.disk,
        prompt_tokens=PROMPT_TOKENS,
    )


def _peak(gpu: Accelerator, dtype: Dtype) -> float:
    return gpu.float32 if dtype is Dtype.float32 else gpu.bfloat16


def _trained_peak(config: RunConfig, gpu: Accelerator) -> float:
    return gpu.bfloat16 if config.model.autocast else _peak(gpu, config.model.dtype)


def _passes(config: RunConfig) -> int:
    """Checkpointing computes the forward pass a second time."""
    return FORWARD + BACKWARD + FORWARD * config.model.gradient_checkpointing


def _room(config: RunConfig, shape: Shape, gpu: Accelerator, lengths: Lengths, weights: float) -> int:
    """Answers whose KV cache fits beside the weights, and no more than the engine is allowed."""
    infer = config.placement.infer
    cache = gpu.memory * GIB * infer.memory_fraction - weights - GIB
    each = (PROMPT_TOKENS + lengths.mean) * cache_bytes_per_token(shape, config)
    return max(1, min(infer.max_num_seqs, int(cache / each)))


def _update(config: RunConfig, shape: Shape, gpu: Accelerator, given: Assumptions) -> float:
    """AdamW, and the sum of the gradients over the ranks: a ring sends each byte twice."""
    size, ranks = shape.parameters * SIZE[config.model.dtype], config.placement.train.devices
    link = gpu.link if ranks <= NODE else gpu.network
    summed = 2 * (ranks - 1) / ranks * size / (link * given.links)
    return ADAM_PASSES * size / (gpu.bandwidth * given.bandwidth) + summed


def _publish(config: RunConfig, shape: Shape, gpu: Accelerator, given: Assumptions) -> float:
    """Down to the host, over the network to other nodes, and up to all engines at once."""
    size, infer = push_bytes(config, shape), config.placement.infer
    engines = infer.replicas * infer.tensor_parallel
    local = size * 2 / (gpu.host * given.copies)
    return local + broadcast_hops(engines) * size / (gpu.network * given.links)
