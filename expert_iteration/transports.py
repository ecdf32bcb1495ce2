"""Ways from a trainer's GPU to the engines' own; weights.py has the one through host memory.

An engine that is sent tensors this way is told with each piece what comes (`Manifest`), by the call that
would carry a bucket. All needs GPUs: what is tested without them is who is told what, and in which order.
"""

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch

from expert_iteration.choices import PushBackend, PushGroups
from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.weights import EngineClient, HostTransport, NamedTensors, Transport, cut, sent_as

Piece: TypeAlias = Sequence[tuple[str, torch.Tensor]]

TRAINER_RANK = 0
"""In every push group: the trainer sends."""


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """What is about to be sent."""

    tensors: Sequence[tuple[str, torch.Size, torch.dtype]]
    """Name, shape and dtype of each."""
    handles: Sequence[Any] | None = None
    """By which another process finds each tensor on the same GPU."""

    @staticmethod
    def of(piece: Piece, handles: Sequence[Any] | None = None) -> "Manifest":
        return Manifest([(name, tensor.shape, tensor.dtype) for name, tensor in piece], handles)

    def update_info(self, plain: bool) -> dict[str, Any]:
        """In the words of vLLM's backends `nccl` and `ipc`."""
        assert not plain or self.handles is None, "handles cannot be put plainly"
        described = {
            "names": [name for name, _, _ in self.tensors],
            "dtype_names": [str(dtype).removeprefix("torch.") for _, _, dtype in self.tensors],
            "shapes": [list(shape) for _, shape, _ in self.tensors],
        }
        return described if self.handles is None else described | {"ipc_handles": list(self.handles)}


@dataclass(frozen=True, slots=True)
class PushGroup:
    """Processes that weights are broadcast among, each with a rank: the trainer and the parts of engines."""

    first_ranks: Mapping[str, int]
    """Of each engine, by name; the parts of an engine follow its first."""
    size: int


def layout(engines: Sequence[str], tensor_parallel: int, groups: PushGroups) -> list[PushGroup]:
    """The groups that reach `engines`, each of which is in one of them."""
    together = [engines] if groups is PushGroups.one else [[engine] for engine in engines]
    return [
        PushGroup(
            {engine: TRAINER_RANK + 1 + index * tensor_parallel for index, engine in enumerate(members)},
            TRAINER_RANK + 1 + len(members) * tensor_parallel,
        )
        for members in together
    ]


class Communicator(Protocol):
    """The trainer's end of a group."""

    def broadcast(self, tensor: torch.Tensor, src: int) -> None: ...


OpenGroup: TypeAlias = Callable[[str, int, int], Communicator]
"""Meets the others of a group at (host, port), as rank 0 of so many; waits for them."""


class ConnectedEngines(EngineClient, Protocol):
    """Several engines in processes of their own."""

    names: Sequence[str]
    home: str
    """Address of this machine, as the engines reach it."""

    def meetings(self) -> Mapping[str, str | None]:
        """Where each engine has met the trainer last; None: nowhere."""
        ...

    def connect(self, offers: Mapping[str, tuple[str, dict[str, Any]]]) -> None:
        """Have each engine named in `offers` go to the meeting and tell vLLM the rest."""
        ...


class NcclTransport:
    """From GPU to GPUs, by broadcasts of vLLM's NCCL groups.

    Groups are formed when they are first needed, and anew where an engine is not in the one that it should
    be in: it was started again, or was brought up to date by itself.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        piece_bytes: int,
        tensor_parallel: int,
        groups: PushGroups,
        open_group: OpenGroup,
    ) -> None:
        self._dtype = dtype
        self._piece_bytes = piece_bytes
        self._tensor_parallel = tensor_parallel
        self._groups = groups
        self._open_group = open_group
        self._open: dict[tuple[str, ...], tuple[str, Communicator]] = {}
        """By the engines of a group: where it met, and our end of it."""

    def carry(self, named_tensors: NamedTensors, clients: Sequence[ConnectedEngines]) -> Iterator[int]:
        """See `Transport`. All engines are told of a piece at once, while it is sent."""
        with ThreadPoolExecutor(len(clients), thread_name_prefix="push") as calls:
            ends = [end for client in clients for end in self._connected(client, calls)]
            for piece in cut(named_tensors, self._dtype, self._piece_bytes):
                sent = _as_sent(piece, self._dtype)
                told = [calls.submit(client.receive, Manifest.of(sent)) for client in clients]
                for end in ends:
                    for _, tensor in sent:
                        end.broadcast(tensor, src=TRAINER_RANK)
                for call in told:
                    call.result()
                yield _bytes_of(sent)

    def _connected(self, client: ConnectedEngines, calls: ThreadPoolExecutor) -> list[Communicator]:
        groups = layout(client.names, self._tensor_parallel, self._groups)
        met = client.meetings()
        apart = [group for group in groups if not self._stands(group, met)]
        meetings = [f"{client.home}:{_free_port()}" for _ in apart]
        offers = {
            engine: (meeting, _init_info(meeting, first_rank, group.size))
            for group, meeting in zip(apart, meetings, strict=True)
            for engine, first_rank in group.first_ranks.items()
        }
        joining = calls.submit(client.connect, offers)
        for group, meeting in zip(apart, meetings, strict=True):
            host, _, port = meeting.rpartition(":")
            end = self._open_group(host, int(port), group.size)
            self._open[tuple(group.first_ranks)] = (meeting, end)
        joining.result()
        return [self._open[tuple(group.first_ranks)][1] for group in groups]

    def _stands(self, group: PushGroup, met: Mapping[str, str | None]) -> bool:
        meeting, _ = self._open.get(tuple(group.first_ranks), (None, None))
        return meeting is not None and all(met[engine] == meeting for engine in group.first_ranks)


class IpcTransport:
    """Through the memory of one GPU: engines are handed where each tensor lies, and copy it."""

    def __init__(self, dtype: torch.dtype, piece_bytes: int) -> None:
        self._dtype, self._piece_bytes = dtype, piece_bytes

    def carry(self, named_tensors: NamedTensors, clients: Sequence[EngineClient]) -> Iterator[int]:
        """See `Transport`."""
        from torch.multiprocessing.reductions import reduce_tensor

        gpu = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
        for piece in cut(named_tensors, self._dtype, self._piece_bytes):
            sent = _as_sent(piece, self._dtype)
            handles = [{gpu: reduce_tensor(tensor)[1]} for _, tensor in sent]
            for client in clients:
                client.receive(Manifest.of(sent, handles))
            yield _bytes_of(sent)
        torch.cuda.ipc_collect()


def transport_of(config: RunConfig) -> Transport:
    """The way that push.backend names.

    Raises:
        ConfigError: this machine lacks what it takes.
    """
    options = config.push
    dtype, piece_bytes = getattr(torch, config.model.engine_dtype.value), options.bucket_mib * 2**20
    if options.backend is PushBackend.host:
        return HostTransport(dtype, piece_bytes)
    if options.backend is PushBackend.ipc:
        return IpcTransport(dtype, piece_bytes)
    parts = config.placement.infer.tensor_parallel
    return NcclTransport(dtype, piece_bytes, parts, options.groups, _nccl())


def _nccl() -> OpenGroup:
    try:
        from vllm.distributed.device_communicators.pynccl_wrapper import NCCLLibrary
        from vllm.distributed.weight_transfer.nccl_common import trainer_init

        NCCLLibrary()
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"push.backend=nccl: NCCL cannot be loaded ({error}); use push.backend=host."
        ) from error

    def open_group(host: str, port: int, size: int) -> Communicator:
        return trainer_init({"master_address": host, "master_port": port, "world_size": size})

    return open_group


def _init_info(meeting: str, first_rank: int, size: int) -> dict[str, Any]:
    """In the words of vLLM's backend `nccl`."""
    host, _, port = meeting.rpartition(":")
    return {"master_address": host, "master_port": int(port), "rank_offset": first_rank, "world_size": size}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _as_sent(piece: Piece, dtype: torch.dtype) -> Piece:
    return [(name, tensor.detach().to(sent_as(tensor, dtype)).contiguous()) for name, tensor in piece]


def _bytes_of(piece: Piece) -> int:
    return sum(tensor.nbytes for _, tensor in piece)
