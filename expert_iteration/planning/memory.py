"""Memory of each process, on its device and on the host: what can be computed, and estimates of the rest.

Weights, gradients, moments, the reference and the KV cache are exact. Activations and logits are what the
backward pass of a Llama-like decoder keeps for one micro-batch; gradients of activations and the allocator
come on top, for which SLACK stands.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from expert_iteration.algorithms import needs_reference
from expert_iteration.checks.learning import most_kept
from expert_iteration.choices import Device, Dtype, Runtime, Sharding
from expert_iteration.config import RunConfig
from expert_iteration.placement.bundles import bundles_of
from expert_iteration.placement.nodes import spread
from expert_iteration.planning.shapes import Shape

MIB, GIB = 2**20, 2**30
SIZE = {Dtype.float32: 4, Dtype.bfloat16: 2}
"""Bytes of an element."""
LOGITS_AT_ONCE = 2**28
"""Logits that the learner holds at a time, as in model.py."""
BUCKET_ELEMENTS = 2**25
"""Gradients that ranks sum at a time, as in gradients.py."""
OBJECT_STORE_BYTES = 512 * MIB
"""Of Ray, as in actors/instance.py."""
SLACK = 0.1
"""Share of the activations and logits that comes on top for their gradients and the allocator."""
CUDA_CONTEXT = GIB // 2
"""Memory that a process takes on a GPU before it puts anything there."""
LIBRARIES = {"driver": 100 * MIB, "buffer": 410 * MIB, "trainer": 430 * MIB, "reference": 430 * MIB} | {
    "collector": 700 * MIB
}
"""Resident size of a process that has imported what its role needs and holds no model."""
LOGIT_BYTES = 12
"""Float32 copies of a logit: log-softmax, its gradient, and one on the way."""
ENGINE_FORWARD = GIB
"""What vLLM needs on a GPU besides weights, logits and KV cache, about."""
ROW_BYTES = 8 + 1 + 4 + 4
"""Of each position of a sample in the buffer: token, mask, log pi_old and log pi_ref (batching.py)."""
ROW_OBJECTS = 12 * 1024
"""Of each sample besides: it is a TensorDict of 14 small tensors (scripts/benchmark/driver.py)."""
PROMPT_TOKENS = 200
"""Length of a prompt, about."""


@dataclass(frozen=True)
class Process:
    """One process, or one rank of it, with its memory in bytes."""

    name: str
    device: str
    """`CPU`, or a GPU by number; where there are several nodes, a GPU of one."""
    parts: dict[str, int]
    """Of the device's memory, by what it is for."""
    host: dict[str, int] = field(default_factory=dict)
    """Of the host's, for a process on a GPU."""
    node: int = 0

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def processes(config: RunConfig, shape: Shape, device_bytes: int | None) -> list[Process]:
    """Every process of a run that holds a model, and where.

    With runtime=local they are one process, and listed apart all the same.

    Args:
        device_bytes: memory of each GPU, or on CPU of the host; None: unknown.
    """
    place, devices = config.placement, _devices(config)
    parts = place.infer.tensor_parallel
    engines = [f"collector {replica}" for replica in range(place.infer.replicas)]
    if parts > 1:
        engines = [f"{name}.{part}" for name in engines for part in range(parts)]
    roles = [
        (
            [f"trainer {rank}" for rank in range(place.train.devices)],
            _trainer(config, shape),
            config.model.dtype,
        ),
        (engines, _engine(config, shape, device_bytes), config.model.engine_dtype),
    ]
    if needs_reference(config):
        names = [f"reference {rank}" for rank in range(place.reference.devices)]
        roles.append((names, _reference(config, shape), config.model.dtype))
    # on the way to a GPU, the weights pass through the host
    found = []
    for names, memory, dtype in roles:
        for name in names:
            node, device = next(devices)
            found.append(Process(name, device, memory, {"weights": shape.parameters * SIZE[dtype]}, node))
    if _is_offloaded(config):
        for trainer in found[: place.train.devices]:
            trainer.host["offloaded"] = sum(_state(config, shape).values())
    return found


def _devices(config: RunConfig) -> Iterator[tuple[int, str]]:
    """Node and device of each process, in the order in which they are listed."""
    place, bundles, given = config.placement, bundles_of(config), Counter[int]()
    for bundle, node in zip(bundles, spread(bundles, place.nodes), strict=True):
        for part in (seat.part for seat in bundle.seats if seat.cpus):
            for _ in range(place.infer.tensor_parallel if part.startswith("collector") else 1):
                where = f"node {node} " if place.nodes > 1 else ""
                yield node, f"{where}GPU {given[node]}" if bundle.gpus else "CPU"
                given[node] += not place.shared


def host(config: RunConfig, shape: Shape, found: list[Process]) -> dict[str, int]:
    """Memory of the host of the driver by what it is for, in bytes: all that does not lie on a GPU."""
    parts: dict[str, int] = {}
    found = [process for process in found if process.node == 0]
    for process in found:
        own = process.parts if process.device == "CPU" else process.host
        parts[process.name] = sum(own.values())
    if config.runtime is Runtime.ray:
        for process in found:
            parts[process.name] += LIBRARIES[process.name.split()[0]]
        parts["driver"] = LIBRARIES["driver"]
        parts["buffer"] = LIBRARIES["buffer"]
        parts["object store"] = OBJECT_STORE_BYTES
    else:
        parts["libraries"] = LIBRARIES["collector"]
    parts["buffer rows"] = buffer_bytes(config) + rows_held(config) * ROW_OBJECTS
    parts["push"] = 2 * _bucket(config, shape)
    return parts


def rows_held(config: RunConfig) -> int:
    """Most samples that are held at once."""
    kept = most_kept(config) * (config.iterations if config.algorithm.accumulate else 1)
    return min(kept, config.buffer.capacity)


def buffer_bytes(config: RunConfig) -> int:
    """Most that their tokens take, in memory and in a checkpoint."""
    length = min(config.sampling.max_tokens + PROMPT_TOKENS, config.model.max_length)
    return rows_held(config) * length * ROW_BYTES


def _bucket(config: RunConfig, shape: Shape) -> int:
    """A bucket holds at least the largest tensor."""
    return max(config.push.bucket_mib * MIB, shape.embedding * SIZE[config.model.engine_dtype])


def _trainer(config: RunConfig, shape: Shape) -> dict[str, int]:
    place, trained = config.placement.train, trained_bytes(config, shape)
    parts = _state(config, shape)
    if place.sharding is Sharding.full:
        if _is_offloaded(config):
            parts = {}
        # what is gathered: all outside the layers, the layer at work and the next one
        gathered = shape.parameters - (shape.layers - min(2, shape.layers)) * shape.layer
        parts["copies"] = gathered * _computed(config.model.dtype, config.model.autocast)
    elif config.model.autocast:
        parts["copies"] = shape.parameters * SIZE[Dtype.bfloat16]
    if place.devices > 1 and place.sharding is Sharding.none:
        parts["other"] = min(BUCKET_ELEMENTS * SIZE[config.model.dtype], trained)
    parts |= _forward(config, shape)
    return _with_context(config, parts)


def trained_bytes(config: RunConfig, shape: Shape) -> int:
    """Of the weights that are trained, or of the adapters in float32."""
    lora = config.model.lora
    if lora.rank > 0:
        return shape.adapters(lora.rank, lora.targets) * SIZE[Dtype.float32]
    return shape.parameters * SIZE[config.model.dtype]


def _state(config: RunConfig, shape: Shape) -> dict[str, int]:
    """What one rank holds from step to step: all of it, or its part."""
    place, trained = config.placement.train, trained_bytes(config, shape)
    weights = shape.parameters * SIZE[config.model.dtype]
    if config.model.lora.rank > 0:
        weights += trained
    parts = place.devices if place.sharding is Sharding.full else 1
    return {"weights": weights // parts, "gradients": trained // parts, "moments": 2 * trained // parts}


def _is_offloaded(config: RunConfig) -> bool:
    return config.placement.train.cpu_offload and config.placement.device is Device.cuda


def _reference(config: RunConfig, shape: Shape) -> dict[str, int]:
    """It keeps nothing for a backward pass: one layer at a time."""
    parts = {"weights": shape.parameters * SIZE[config.model.dtype]}
    tokens, logits = _tokens(config), _logits(config, shape)
    one = layer_bytes(shape, config.model.dtype, config.model.autocast)
    return _with_context(config, parts | {"activations": round(one * tokens * (1 + SLACK)), "logits": logits})


def _with_context(config: RunConfig, parts: dict[str, int]) -> dict[str, int]:
    if config.placement.device is Device.cuda:
        parts["other"] = parts.get("other", 0) + CUDA_CONTEXT
    return parts


def _forward(config: RunConfig, shape: Shape) -> dict[str, int]:
    kept = activation_bytes(
        shape, config.model.dtype, config.model.autocast, config.model.gradient_checkpointing
    )
    return {
        "activations": round(kept * _tokens(config) * (1 + SLACK)),
        "logits": round(_logits(config, shape) * (1 + SLACK)),
    }


def _tokens(config: RunConfig) -> int:
    """Positions of the largest micro-batch: a row longer than the budget has one of its own."""
    return max(config.micro_batch_tokens, config.model.max_length)


def _logits(config: RunConfig, shape: Shape) -> int:
    """Of the response tokens that are scored at once; the rest is computed in pieces."""
    at_once = min(_tokens(config) * shape.vocabulary, max(LOGITS_AT_ONCE, shape.vocabulary))
    return at_once * (LOGIT_BYTES + (0 if _computed(config.model.dtype, config.model.autocast) == 4 else 2))


def _computed(dtype: Dtype, autocast: bool) -> int:
    """Bytes of an element that matrix products read."""
    return SIZE[Dtype.bfloat16] if autocast else SIZE[dtype]


def activation_bytes(shape: Shape, dtype: Dtype, autocast: bool, checkpointing: bool) -> int:
    """What the backward pass needs of each position, without the logits."""
    one, residual = layer_bytes(shape, dtype, autocast), shape.hidden * SIZE[dtype]
    norm = shape.hidden * (4 + SIZE[dtype])
    if checkpointing:
        return shape.layers * residual + one + norm
    return shape.layers * one + norm


def layer_bytes(shape: Shape, dtype: Dtype, autocast: bool) -> int:
    """What the backward pass needs of one layer at each position, in bytes.

    Two norms, each of which keeps its input in float32 and the normalised vector; the inputs of the seven
    projections, which autocast casts one by one; queries, keys and values as attention reads them, and what
    it returns; and four vectors of the MLP. `test_planning.py` measures it.
    """
    size = _computed(dtype, autocast)
    normalised = shape.hidden + shape.query_norm * (shape.queries + shape.keys) // 2
    norms = 2 * normalised * (4 + SIZE[dtype])
    inputs = (5 if autocast else 2) * shape.hidden
    return norms + size * (inputs + 2 * shape.queries + 2 * shape.keys + 4 * shape.intermediate)


def cache_bytes_per_token(shape: Shape, config: RunConfig) -> int:
    """Keys and values of one position, on one of the devices that share an engine."""
    heads = -(-shape.kv_heads // config.placement.infer.tensor_parallel)
    return 2 * shape.layers * heads * shape.head_dim * SIZE[config.model.engine_dtype]


def _engine(config: RunConfig, shape: Shape, device_bytes: int | None) -> dict[str, int]:
    """vLLM takes its share of a device whole: what weights and the largest forward leave is KV cache."""
    infer = config.placement.infer
    logits = infer.max_num_seqs * shape.vocabulary * 4
    parts = {"weights": shape.parameters * SIZE[config.model.engine_dtype] // infer.tensor_parallel}
    if config.placement.device is Device.cpu and infer.kv_cache_mib is not None:
        return parts | {"logits": logits, "KV cache": infer.kv_cache_mib * MIB}
    if device_bytes is None:
        return parts | {"logits": logits, "other": ENGINE_FORWARD}
    share = round(device_bytes * infer.memory_fraction)
    cache = max(0, share - parts["weights"] - logits - ENGINE_FORWARD)
    return parts | {"logits": logits, "other": ENGINE_FORWARD, "KV cache": cache}


def push_bytes(config: RunConfig, shape: Shape) -> int:
    """What a push brings to each engine: the weights in the engine's dtype."""
    return shape.parameters * SIZE[config.model.engine_dtype]
