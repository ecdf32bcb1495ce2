"""Trained weights on their way to the engines: packed into buckets, pushed to every client.

Knows nothing of vLLM or Ray, so that a trainer imports it at no cost and any transport can carry it.
"""

import time
import weakref
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from expert_iteration.types import Interruption

BUCKET_BYTES = 64 * 2**20
NamedTensors: TypeAlias = Iterable[tuple[str, torch.Tensor]]
"""Full (unsharded) tensors under their Hugging Face names."""
ALIGNMENT = 16
"""Every tensor starts at a multiple of this many bytes, so that it can be viewed in its dtype."""


@dataclass(frozen=True, slots=True, eq=False)
class Bucket:
    """Some tensors of a model, back to back in one flat array.

    One contiguous array is what Ray's object store shares between processes without copying.
    """

    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    """Names of torch dtypes: ``bfloat16``, ``float32``, ..."""
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    """Byte at which each tensor starts in `data`."""
    data: NDArray[np.uint8]
    checksum: int | None = None
    """`checksum_of` the rest, as it was sent; None: nobody checks."""

    def update_info(self, plain: bool) -> dict[str, Any]:
        """What vLLM's side is handed; `plain`: lists and bytes, for a process that unpickles nothing."""
        if not plain:
            return {"bucket": self}
        labels = {"names": self.names, "dtypes": self.dtypes, "shapes": self.shapes, "offsets": self.offsets}
        return {"bucket": labels | {"data": self.data.tobytes()}}

    @staticmethod
    def of_plain(values: dict[str, Any]) -> "Bucket":
        """The bucket that `update_info` has put into plain values."""
        names, dtypes, offsets = (tuple(values[key]) for key in ("names", "dtypes", "offsets"))
        shapes = tuple(map(tuple, values["shapes"]))
        return Bucket(names, dtypes, shapes, offsets, np.frombuffer(values["data"], np.uint8))


class DamagedWeights(RuntimeError):
    """A bucket is not what was sent. Its only argument is the message, so that it can be pickled."""


class Parcel(Protocol):
    """Some weights on their way, or the word that they come by another way."""

    def update_info(self, plain: bool) -> dict[str, Any]: ...


class EngineClient(Protocol):
    """What a push needs of an engine, be it here or in another process. `Engine` is one."""

    def start_update(self, version: int) -> None: ...

    def receive(self, parcel: Any, /) -> None:
        """Take a `Parcel` of the transport's kind."""
        ...

    def finish_update(self) -> Interruption: ...


class Transport(Protocol):
    """A way for tensors to reach engines."""

    def carry(self, named_tensors: NamedTensors, clients: Sequence[Any]) -> Iterator[int]:
        """Bring every tensor to every client; yields the size of each piece in bytes."""
        ...


@dataclass(frozen=True, slots=True)
class HostTransport:
    """Through the memory of the host, in buckets that any call can carry."""

    dtype: torch.dtype
    """What the engines compute in; floating-point tensors are cast to it."""
    bucket_bytes: int = BUCKET_BYTES
    checksums: bool = False
    """Have the engines compare each bucket with what was sent."""

    def carry(self, named_tensors: NamedTensors, clients: Sequence[EngineClient]) -> Iterator[int]:
        for bucket in pack(named_tensors, self.dtype, self.bucket_bytes):
            if self.checksums:
                bucket = replace(bucket, checksum=checksum_of(bucket))
            for client in clients:
                client.receive(bucket)
            yield bucket.data.nbytes


@dataclass(frozen=True, slots=True)
class PushReport:
    seconds: float
    bytes: int
    buckets: int
    interruption: Interruption


def push(
    named_tensors: NamedTensors, clients: Sequence[EngineClient], version: int, transport: Transport
) -> PushReport:
    """Replace the weights of every client by `named_tensors`, as policy `version`.

    The clients generate nothing from the first call to the last, but to finish what was under way where
    push.pause is `wait`. When this raises, they go on refusing to generate until a later push is complete.

    Raises:
        DamagedWeights: a bucket arrived that was not sent so.
    """
    begun = time.perf_counter()
    for client in clients:
        client.start_update(version)
    sizes = list(transport.carry(named_tensors, clients))
    interruption = Interruption.of_all([client.finish_update() for client in clients])
    return PushReport(time.perf_counter() - begun, sum(sizes), len(sizes), interruption)


def checksum_of(bucket: Bucket) -> int:
    """CRC-32 of what a bucket holds and of how it is to be read."""
    labels = repr((bucket.names, bucket.dtypes, bucket.shapes, bucket.offsets))
    return zlib.crc32(bucket.data.data, zlib.crc32(labels.encode()))


def refuse_damaged(bucket: Bucket) -> None:
    """
    Raises:
        DamagedWeights: its checksum is not the one that it was sent with.
    """
    if bucket.checksum is not None and (found := checksum_of(bucket)) != bucket.checksum:
        raise DamagedWeights(
            f"the weights {bucket.names[0]} to {bucket.names[-1]} arrived with the checksum {found:08x}, but "
            f"were sent with {bucket.checksum:08x}; check the memory and the network, then push all again."
        )


def pack(
    named_tensors: NamedTensors, dtype: torch.dtype, bucket_bytes: int = BUCKET_BYTES
) -> Iterator[Bucket]:
    """`cut` tensors, packed: a bucket of each piece."""
    for piece in cut(named_tensors, dtype, bucket_bytes):
        yield _fill(piece, dtype)


def cut(
    named_tensors: NamedTensors, dtype: torch.dtype, piece_bytes: int
) -> Iterator[list[tuple[str, torch.Tensor]]]:
    """Pieces of at most `piece_bytes` when they are cast to `dtype`; a larger tensor is a piece of its own.

    A tensor that shares its memory with one before it (a tied ``lm_head.weight``) is left out.
    """
    waiting: list[tuple[str, torch.Tensor]] = []
    size = 0
    for name, tensor in _without_tied(named_tensors):
        needed = _bytes_of(tensor, dtype)
        if waiting and size + needed > piece_bytes:
            yield waiting
            waiting, size = [], 0
        waiting.append((name, tensor))
        size += needed
    if waiting:
        yield waiting


def unpack(bucket: Bucket) -> Iterator[tuple[str, torch.Tensor]]:
    """The (name, tensor) pairs of a bucket, as views of its memory."""
    # torch has no read-only tensors, and Ray hands out read-only arrays
    flat = torch.from_numpy(bucket.data if bucket.data.flags.writeable else bucket.data.copy())
    for name, dtype, shape, offset in zip(
        bucket.names, bucket.dtypes, bucket.shapes, bucket.offsets, strict=True
    ):
        yield name, _view(flat, offset, getattr(torch, dtype), torch.Size(shape))


def _fill(named_tensors: Sequence[tuple[str, torch.Tensor]], dtype: torch.dtype) -> Bucket:
    dtypes = [sent_as(tensor, dtype) for _, tensor in named_tensors]
    sizes = [_bytes_of(tensor, dtype) for _, tensor in named_tensors]
    offsets = tuple(int(end) - size for end, size in zip(np.cumsum(sizes), sizes, strict=True))
    data = np.empty(sum(sizes), dtype=np.uint8)
    flat = torch.from_numpy(data)
    for (_, tensor), offset, chosen in zip(named_tensors, offsets, dtypes, strict=True):
        _view(flat, offset, chosen, tensor.shape).copy_(tensor.detach())
    return Bucket(
        names=tuple(name for name, _ in named_tensors),
        dtypes=tuple(str(chosen).removeprefix("torch.") for chosen in dtypes),
        shapes=tuple(tuple(tensor.shape) for _, tensor in named_tensors),
        offsets=offsets,
        data=data,
    )


def _view(flat: torch.Tensor, offset: int, dtype: torch.dtype, shape: torch.Size) -> torch.Tensor:
    return flat[offset : offset + shape.numel() * dtype.itemsize].view(dtype).view(shape)


def sent_as(tensor: torch.Tensor, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a tensor travels to engines that compute in `dtype`."""
    return dtype if tensor.is_floating_point() else tensor.dtype


def _bytes_of(tensor: torch.Tensor, dtype: torch.dtype) -> int:
    """Bytes that a tensor takes in a bucket, up to where the next one starts."""
    needed = tensor.numel() * sent_as(tensor, dtype).itemsize
    return -(-needed // ALIGNMENT) * ALIGNMENT


def _without_tied(named_tensors: NamedTensors) -> Iterator[tuple[str, torch.Tensor]]:
    # a weak reference, because the address of a tensor that is gone (a gathered shard) is used again
    seen: dict[tuple[int, torch.Size], weakref.ref[torch.Tensor]] = {}
    for name, tensor in named_tensors:
        place = (tensor.data_ptr(), tensor.shape)
        owner = seen.get(place)
        if owner is not None and owner() is not None:
            continue
        seen[place] = weakref.ref(tensor)
        yield name, tensor
