"""One copy of the weights over all ranks (FSDP, arXiv 2304.11277), and what a sharded tensor is to others.

A sharded tensor is cut along its first dimension, as `torch.chunk` does: the last ranks may hold nothing of
a small one.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor


def shard(
    root: nn.Module, layers: list[nn.Module], device: torch.device, bfloat16: bool, offload: bool
) -> None:
    """Leave this rank its part of every weight of `root`, whose forward pass gathers them, layer by layer.

    Gradients are summed over the ranks, not averaged: the loss is divided by the size of the whole step
    already. They are summed in float32.

    Args:
        layers: modules of `root` with weights to be gathered apart; all others come together once per pass.
        bfloat16: compute in it; the parts keep their dtype.
        offload: keep the parts on the host.
    """
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (torch.distributed.get_world_size(),)),
        "mp_policy": MixedPrecisionPolicy(torch.bfloat16 if bfloat16 else None, torch.float32),
        "offload_policy": CPUOffloadPolicy(device.type == "cuda") if offload else OffloadPolicy(),
    }
    for module in (*layers, root):
        sharded = fully_shard(module, **options)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def release(root: nn.Module) -> None:
    """Drop the weights that a forward pass has gathered and no backward pass follows."""
    if isinstance(root, FSDPModule):
        root.reshard()


def whole(value: Tensor) -> Tensor:
    """All of a sharded tensor, for which every rank must ask; any other as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


@torch.no_grad()
def put(target: Tensor, value: Tensor) -> None:
    """Copy `value`, which is whole, into `target`, or this rank's part of it."""
    if isinstance(target, DTensor):
        parts = value.chunk(target.device_mesh.size())
        rank = target.device_mesh.get_local_rank()
        target, value = target.to_local(), parts[rank] if rank < len(parts) else value[:0]
    target.copy_(value)


def laid_out(value: Tensor, pattern: Tensor) -> Tensor:
    """A copy of `value` where `pattern` lies; of the shape of a sharded one, this rank's part of it."""
    if isinstance(pattern, DTensor) and value.shape == pattern.shape:
        part = torch.empty_like(pattern, dtype=value.dtype)
        put(part, value)
        return part.detach()
    return value.to(pattern.device, copy=True)
