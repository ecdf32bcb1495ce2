"""What cannot fit, in one line each: the numbers, the keys and the remedy."""

import math
from collections.abc import Iterator, Sequence

from expert_iteration.algorithms import needs_reference
from expert_iteration.checks.placing import gpus_needed
from expert_iteration.choices import Device, Sharding
from expert_iteration.config import RunConfig
from expert_iteration.placement.bundles import bundles_of
from expert_iteration.placement.nodes import homeless
from expert_iteration.planning.disk import DiskUse
from expert_iteration.planning.machine import Machine
from expert_iteration.planning.memory import GIB, Process, cache_bytes_per_token
from expert_iteration.planning.shapes import Shape
from expert_iteration.planning.sharing import fullest


def too_few_devices(config: RunConfig, machine: Machine) -> Iterator[str]:
    needed = gpus_needed(config)
    if config.ray.address is not None and machine.here:
        return  # what the nodes of a cluster have is not known here
    if config.placement.nodes > 1:
        yield from _too_small_nodes(config, len(machine.gpus))
        return
    there = len(machine.gpus)
    if needed > there:
        place, whose = config.placement, "this machine has" if machine.here else "--devices says"
        yield (
            f"placement needs {needed} GPUs (placement.train.devices {place.train.devices}, "
            f"placement.infer.replicas x tensor_parallel {place.infer.replicas} x "
            f"{place.infer.tensor_parallel}, placement.reference.devices "
            f"{place.reference.devices if needs_reference(config) else 0}), but {whose} {there}; lower them, "
            "take placement=one_gpu or placement=cpu, or describe another machine by --devices and --memory."
        )


def _too_small_nodes(config: RunConfig, gpus: int) -> Iterator[str]:
    nodes = config.placement.nodes
    if left := homeless(bundles_of(config), [(gpus, math.inf)] * nodes):
        yield (
            f"{nodes} nodes (placement.nodes) of {gpus} GPUs (--devices) have no room for {left}; lower "
            "placement.train.devices or placement.infer.replicas, or raise placement.nodes."
        )


def too_full_devices(config: RunConfig, machine: Machine, found: Sequence[Process]) -> Iterator[str]:
    size = machine.gpu_memory
    if size is None or config.placement.device is Device.cpu:
        return
    for device in dict.fromkeys(process.device for process in found):
        here = [process for process in found if process.device == device]
        if (total := fullest(config, here)) > size:
            shares = ", ".join(f"{process.name} {_gib(process.total)}" for process in here)
            yield (
                f"{device} would need {_gib(total)} of its {_gib(size)} (each at its most: {shares}); "
                f"{_relief(config, max(here, key=lambda process: process.total))}."
            )


def _relief(config: RunConfig, largest: Process) -> str:
    """The keys that help most."""
    model, infer, train = config.model, config.placement.infer, config.placement.train
    ways = []
    if largest.name.startswith("trainer") and not model.gradient_checkpointing:
        ways.append("set model.gradient_checkpointing=true")
    if largest.name.startswith("trainer") and train.devices > 1 and train.sharding is Sharding.none:
        ways.append("set placement.train.sharding=full")
    if config.micro_batch_tokens > model.max_length:
        ways.append(f"lower micro_batch_tokens ({config.micro_batch_tokens})")
    if config.placement.shared:
        if config.mode.max_staleness == 0 and not infer.sleep_level:
            ways.append("set placement.infer.sleep_level=2")
        ways.append(f"lower placement.infer.memory_fraction ({infer.memory_fraction})")
        ways.append("take placement=split")
    ways.append("take a smaller model.path or model.dtype=bfloat16")
    return ", ".join(ways[:-1]) + (", or " if ways[:-1] else "") + ways[-1]


def too_small_cache(config: RunConfig, shape: Shape, found: Sequence[Process]) -> Iterator[str]:
    """vLLM refuses to start when one sequence does not fit."""
    infer = config.placement.infer
    for process in found:
        if "KV cache" not in process.parts:
            continue
        tokens = process.parts["KV cache"] // cache_bytes_per_token(shape, config)
        if tokens < config.model.max_length:
            by_size = config.placement.device is Device.cpu and infer.kv_cache_mib is not None
            key = (
                f"placement.infer.kv_cache_mib ({infer.kv_cache_mib})"
                if by_size
                else f"placement.infer.memory_fraction ({infer.memory_fraction})"
            )
            yield (
                f"{key} leaves {process.name} a KV cache of {tokens:,} tokens, fewer than one sequence of "
                f"model.max_length ({config.model.max_length}); raise the former or lower the latter."
            )
            return


def too_little_memory(config: RunConfig, machine: Machine, host: dict[str, int]) -> Iterator[str]:
    total = sum(host.values())
    if machine.memory is not None and total > machine.memory:
        largest = sorted(host, key=lambda name: -host[name])[:3]
        shares = ", ".join(f"{name} {_gib(host[name])}" for name in largest)
        yield (
            f"the host would need {_gib(total)} of its {_gib(machine.memory)} (most of it: {shares}); lower "
            f"placement.infer.replicas ({config.placement.infer.replicas}) or micro_batch_tokens "
            f"({config.micro_batch_tokens}), or take a smaller model.path."
        )


def too_little_disk(config: RunConfig, machine: Machine, disk: DiskUse) -> Iterator[str]:
    if machine.disk is not None and disk.most > machine.disk:
        yield (
            f"the run folder would take {_gib(disk.most)}, and its disk has {_gib(machine.disk)} free; name "
            f"another hydra.run.dir, lower checkpoint.keep_last ({config.checkpoint.keep_last}), or set "
            "checkpoint.keep_best=false or logger.tokens=false."
        )


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"
