"""Packing trained weights for the engines, without an engine."""

import json
from collections.abc import Iterator

import pytest
import torch

from expert_iteration.types import Interruption
from expert_iteration.weights import ALIGNMENT, Bucket, HostTransport, pack, push, unpack


class RecordingClient:
    """An engine that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.weights: dict[str, torch.Tensor] = {}

    def start_update(self, version: int) -> None:
        self.calls.append(f"start {version}")

    def receive(self, bucket: Bucket) -> None:
        self.calls.append("receive")
        self.weights |= dict(unpack(bucket))

    def finish_update(self) -> Interruption:
        self.calls.append("finish")
        return Interruption(stalled=0.25 * len(self.calls), aborted=1, resumed=2)


def some_tensors() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = {"embed.weight": (7, 3), "norm.weight": (5,), "scale": (), "mlp.weight": (3, 2, 4), "bias": (1,)}
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


def arrived(buckets: Iterator[Bucket]) -> dict[str, torch.Tensor]:
    return {name: tensor for bucket in buckets for name, tensor in unpack(bucket)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bucket_bytes", [1, 64, 1_000_000])
def test_tensors_arrive_bit_for_bit_in_the_dtype_of_the_engine(dtype: torch.dtype, bucket_bytes: int) -> None:
    sent = some_tensors()
    received = arrived(pack(sent.items(), dtype, bucket_bytes))
    assert list(received) == list(sent)
    for name, tensor in sent.items():
        assert received[name].dtype == dtype
        assert torch.equal(received[name], tensor.to(dtype))


def test_what_is_not_contiguous_or_not_floating_arrives_too() -> None:
    sent = {"transposed": torch.arange(6.0).view(2, 3).T, "counts": torch.arange(5)}
    received = arrived(pack(sent.items(), torch.bfloat16))
    assert torch.equal(received["transposed"], sent["transposed"].bfloat16())
    assert torch.equal(received["counts"], sent["counts"])


def test_buckets_split_at_the_limit() -> None:
    sixteen_bytes = torch.ones(4)
    buckets = list(pack(((str(i), sixteen_bytes + i) for i in range(5)), torch.float32, 2 * ALIGNMENT))
    assert [bucket.names for bucket in buckets] == [("0", "1"), ("2", "3"), ("4",)]
    assert [bucket.data.nbytes for bucket in buckets] == [32, 32, 16]


def test_a_tensor_over_the_limit_has_a_bucket_to_itself() -> None:
    sent = {"small": torch.ones(4), "large": torch.ones(400), "last": torch.ones(4)}
    buckets = list(pack(sent.items(), torch.float32, 64))
    assert [bucket.names for bucket in buckets] == [("small",), ("large",), ("last",)]


def test_a_tied_tensor_is_sent_once() -> None:
    embedding, head = torch.nn.Embedding(6, 4), torch.nn.Linear(4, 6, bias=False)
    head.weight = embedding.weight
    model = torch.nn.ModuleDict({"embed": embedding, "lm_head": head})
    assert list(model.state_dict()) == ["embed.weight", "lm_head.weight"]
    assert list(arrived(pack(model.state_dict().items(), torch.float32))) == ["embed.weight"]


def test_equal_tensors_that_are_not_tied_are_all_sent() -> None:
    sent = {"a": torch.zeros(8), "b": torch.zeros(8)}
    assert list(arrived(pack(sent.items(), torch.float32))) == ["a", "b"]


def test_a_tensor_that_takes_over_the_memory_of_one_that_is_gone_is_sent() -> None:
    gathered_one_by_one = ((str(i), torch.full((1000,), float(i))) for i in range(50))
    received = arrived(pack(gathered_one_by_one, torch.float32, bucket_bytes=1))
    assert [tensor[0].item() for tensor in received.values()] == list(range(50))


def test_a_bucket_in_read_only_memory_can_be_unpacked() -> None:
    (bucket,) = pack(some_tensors().items(), torch.float32)
    bucket.data.flags.writeable = False
    assert all(torch.equal(tensor, some_tensors()[name]) for name, tensor in unpack(bucket))


def test_a_push_reaches_every_client_in_the_order_start_receive_finish() -> None:
    clients = [RecordingClient(), RecordingClient()]
    report = push(some_tensors().items(), clients, 3, HostTransport(torch.bfloat16, bucket_bytes=64))
    for client in clients:
        assert client.calls == ["start 3", *["receive"] * report.buckets, "finish"]
        assert client.weights.keys() == some_tensors().keys()
    assert report.buckets > 1
    assert report.bytes >= 2 * sum(tensor.numel() for tensor in some_tensors().values())


def test_a_push_tells_what_it_has_done_to_answers_under_way() -> None:
    """Counts add up over the engines; the time is that of the engine that stood still longest."""
    clients = [RecordingClient(), RecordingClient()]
    clients[0].calls = ["earlier"] * 3
    report = push(some_tensors().items(), clients, 1, HostTransport(torch.float32))
    assert report.interruption == Interruption(stalled=0.25 * len(clients[0].calls), aborted=2, resumed=4)
    assert Interruption.of_all([]) == Interruption()


@pytest.mark.parametrize("plain", [False, True])
def test_a_bucket_reaches_a_process_that_unpickles_nothing_as_well(plain: bool) -> None:
    (bucket,) = pack(some_tensors().items(), torch.bfloat16)
    handed = bucket.update_info(plain)["bucket"]
    if plain:
        handed = Bucket.of_plain(json.loads(json.dumps(handed, default=list)) | {"data": handed["data"]})
    assert all(torch.equal(tensor, arrived(iter([bucket]))[name]) for name, tensor in unpack(handed))


def test_a_push_that_breaks_does_not_finish() -> None:
    def breaks_down() -> Iterator[tuple[str, torch.Tensor]]:
        yield "a", torch.ones(4)
        yield "b", torch.ones(4)
        raise RuntimeError("a rank died")

    client = RecordingClient()
    with pytest.raises(RuntimeError, match="a rank died"):
        push(breaks_down(), [client], 1, HostTransport(torch.float32, bucket_bytes=16))
    assert client.calls == ["start 1", "receive"]
