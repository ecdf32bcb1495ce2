"""Processes and devices that cannot be had."""

from pathlib import Path

from expert_iteration.algorithms import needs_reference
from expert_iteration.choices import Runtime, Sharding
from expert_iteration.config import RunConfig
from expert_iteration.placement.bundles import bundles_of, total


def placement_problems(config: RunConfig, there: int) -> list[str]:
    """What cannot work where `there` GPUs are, each with the way out."""
    return [*_device_problems(config, there), *_sharding_problems(config)]


def _device_problems(config: RunConfig, there: int) -> list[str]:
    placement, found = config.placement, []
    ranks = {
        "placement.train.devices": placement.train.devices,
        "placement.infer.replicas": placement.infer.replicas,
        "placement.reference.devices": placement.reference.devices,
    }
    for key, count in ranks.items():
        if config.runtime is Runtime.local and count > 1:
            found.append(f"{key} ({count}) needs processes, but runtime is local; use placement=cpu.")
        if placement.shared and count > 1:
            found.append(f"{key} ({count}) cannot share one GPU; use placement=split.")
    if placement.shared and placement.infer.tensor_parallel > 1:
        found.append(
            f"placement.infer.tensor_parallel ({placement.infer.tensor_parallel}) needs as many GPUs, but "
            "placement.shared is true; use placement=split."
        )
    if placement.nodes > 1 and config.ray.address is None:
        found.append(
            f"placement.nodes ({placement.nodes}) needs a cluster, but ray.address is null; name it, as "
            "placement=cluster does, or use placement.nodes=1."
        )
    # what the nodes of a cluster have is known once they are joined
    if config.ray.address is None and (needed := gpus_needed(config)) > there:
        found.append(
            f"placement needs {needed} GPUs (train {placement.train.devices}, infer "
            f"{placement.infer.replicas} x {placement.infer.tensor_parallel}, reference "
            f"{placement.reference.devices if needs_reference(config) else 0}), but this machine has "
            f"{there}; lower them, or use placement=one_gpu or placement=cpu."
        )
    return found


def _sharding_problems(config: RunConfig) -> list[str]:
    train, found = config.placement.train, []
    if train.sharding is Sharding.full and config.runtime is Runtime.local:
        found.append(
            "placement.train.sharding=full needs the processes of runtime=ray, but runtime is local; use "
            "placement=cpu, or placement.train.sharding=none."
        )
    if train.cpu_offload and train.sharding is Sharding.none:
        found.append(
            "placement.train.cpu_offload=true moves the parts of sharded weights, but "
            "placement.train.sharding is none; use full."
        )
    return found


def gpus_needed(config: RunConfig) -> int:
    """On all nodes."""
    return total(bundles_of(config))[0]


def gpus_here() -> int:
    """NVIDIA GPUs of this machine, counted without loading torch."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
