"""Gradients of all ranks as one: their sum, and its norm."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import torch
from torch import Tensor, distributed
from torch.nn.utils import get_total_norm

from expert_iteration.sharding import whole

BUCKET_ELEMENTS = 2**25
"""Gradient elements that are summed over the ranks in one call."""


def sum_over_ranks(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Give parameters that all ranks hold whole the sum of their gradients; one without counts as 0."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    sum_in_buckets([parameter.grad for parameter in parameters if parameter.grad is not None])


def norm_of(parameters: Sequence[torch.nn.Parameter]) -> float:
    """Norm of all gradients together, those of other ranks' parts included."""
    return whole(get_total_norm([p.grad for p in parameters if p.grad is not None])).item()


def sum_in_buckets(gradients: Sequence[Tensor]) -> None:
    """Sum each gradient over all ranks, in place, in flat pieces of about BUCKET_ELEMENTS."""
    for _, bucket in groupby(_numbered(gradients), key=itemgetter(0)):
        members = [gradient for _, gradient in bucket]
        flat = torch.cat([gradient.flatten() for gradient in members])
        distributed.all_reduce(flat)
        for gradient, summed in zip(members, flat.split([g.numel() for g in members]), strict=True):
            gradient.copy_(summed.view_as(gradient))


def _numbered(gradients: Sequence[Tensor]) -> Iterator[tuple[tuple[torch.dtype, int], Tensor]]:
    """Each gradient with the key of its bucket: neighbours of one type share one up to its size."""
    before = 0
    for gradient in gradients:
        yield (gradient.dtype, before // BUCKET_ELEMENTS), gradient
        before += gradient.numel()
