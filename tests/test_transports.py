"""Pushes from GPU to GPU, up to where NCCL begins: who is told what, by a fake of everything beyond."""

import weakref
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Event

import pytest
import torch

from expert_iteration.choices import PushBackend, PushGroups
from expert_iteration.config import ModelConfig, PushConfig, RunConfig
from expert_iteration.transports import TRAINER_RANK, Manifest, NcclTransport, layout, transport_of
from expert_iteration.types import Interruption
from expert_iteration.weights import HostTransport, push

SHAPES = {"embed": (40, 4), "norm": (4,), "counts": (3,)}


@pytest.mark.parametrize("groups", PushGroups)
@pytest.mark.parametrize("tensor_parallel", [1, 2, 3, 4])
@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
def test_ranks_of_a_push_group_are_unique_and_complete(replicas, tensor_parallel, groups):
    engines = [f"collector {number}" for number in range(replicas)]
    found = layout(engines, tensor_parallel, groups)
    assert len(found) == (1 if groups is PushGroups.one else replicas)
    assert sorted(engine for group in found for engine in group.first_ranks) == engines
    for group in found:
        # vLLM adds the number of a part to the first rank of its engine
        parts = [first + part for first in group.first_ranks.values() for part in range(tensor_parallel)]
        assert sorted([TRAINER_RANK, *parts]) == list(range(group.size))


@dataclass
class FakeGroup:
    """What was broadcast, in order."""

    size: int
    sent: list[torch.Tensor] = field(default_factory=list)

    def broadcast(self, tensor, src):
        assert src == TRAINER_RANK
        self.sent.append(tensor.clone())


class FakeNetwork:
    """Groups by where they meet; a group is open once all its members have come."""

    def __init__(self, tensor_parallel=1):
        self.tensor_parallel = tensor_parallel
        self.groups = {}
        self.came = defaultdict(set)
        self.complete = defaultdict(Event)

    def join(self, meeting, first_rank, size):
        self.came[meeting] |= set(range(first_rank, first_rank + self.tensor_parallel))
        if self.came[meeting] == set(range(1, size)):
            self.complete[meeting].set()

    def open_group(self, host, port, size):
        meeting = f"{host}:{port}"
        assert self.complete[meeting].wait(10), "an engine was not invited"
        self.groups[meeting] = FakeGroup(size)
        return self.groups[meeting]


class FakeEngines:
    """Take part in the groups of a network; what they are told comes back as weights."""

    home = "10.0.0.1"

    def __init__(self, network, names):
        self.network, self.names = network, list(names)
        self.met = dict.fromkeys(names)
        self.told = []
        self.calls = []

    def meetings(self):
        return {name: self.met[name] for name in self.names}

    def connect(self, offers):
        self.calls.append(f"connect {len(offers)}")
        for name, (meeting, info) in offers.items():
            assert f"{info['master_address']}:{info['master_port']}" == meeting
            self.network.join(meeting, info["rank_offset"], info["world_size"])
            self.met[name] = meeting

    def start_update(self, version):
        self.calls.append(f"start {version}")

    def receive(self, parcel):
        self.told.append(parcel.update_info(plain=True))

    def finish_update(self):
        self.calls.append("finish")
        return Interruption()

    def only(self, name):
        """The same engines, of which one is spoken to."""
        one = FakeEngines(self.network, [name])
        one.met = self.met
        return one


def weights():
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return made | {"counts": torch.arange(3)}


def transport(network, groups=PushGroups.one, piece_bytes=64):
    return NcclTransport(torch.bfloat16, piece_bytes, network.tensor_parallel, groups, network.open_group)


@pytest.mark.parametrize("groups", PushGroups)
@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_every_group_gets_every_tensor_as_it_was_announced(groups, tensor_parallel):
    network = FakeNetwork(tensor_parallel)
    engines = FakeEngines(network, ["collector 0", "collector 1"])
    report = push(weights().items(), [engines], 7, transport(network, groups))
    assert engines.calls == ["start 7", "connect 2", "finish"]
    announced = [
        (name, dtype, shape)
        for told in engines.told
        for name, dtype, shape in zip(told["names"], told["dtype_names"], told["shapes"], strict=True)
    ]
    assert announced == [
        ("embed", "bfloat16", [40, 4]),
        ("norm", "bfloat16", [4]),
        ("counts", "int64", [3]),
    ]
    assert len(network.groups) == (1 if groups is PushGroups.one else 2)
    for group in network.groups.values():
        for sent, tensor in zip(group.sent, weights().values(), strict=True):
            assert torch.equal(sent, tensor.to(sent.dtype))
    assert report.buckets > 1
    assert report.bytes == sum(tensor.nbytes for tensor in group.sent)


@pytest.mark.parametrize("groups", PushGroups)
def test_groups_are_formed_once_and_anew_for_an_engine_that_was_started_again(groups):
    network = FakeNetwork()
    engines = FakeEngines(network, ["collector 0", "collector 1"])
    way = transport(network, groups)
    for version in (1, 2):
        push(weights().items(), [engines], version, way)
    assert engines.calls.count("connect 2") == 1
    engines.met["collector 1"] = None
    one = engines.only("collector 1")
    push(weights().items(), [one], 2, way)
    assert one.calls == ["start 2", "connect 1", "finish"]
    before = len(network.groups)
    push(weights().items(), [engines], 3, way)
    # its own group stands where each engine has one; the group of all has lost a member
    assert len(network.groups) - before == (1 if groups is PushGroups.one else 0)
    assert len(set(engines.meetings().values())) == len(layout(engines.names, 1, groups))


def test_an_engine_that_was_started_again_and_is_alone_is_connected_again():
    network = FakeNetwork()
    engines = FakeEngines(network, ["collector 0"])
    way = transport(network)
    push(weights().items(), [engines], 1, way)
    engines.met["collector 0"] = None
    push(weights().items(), [engines], 1, way)
    assert len(network.groups) == 2


def test_engines_are_told_of_a_piece_while_it_is_sent():
    """An engine answers only when it has received, so who waits for the answer first waits for ever."""
    network = FakeNetwork()
    sent = Event()

    class Blocking(FakeEngines):
        def receive(self, _):
            assert sent.wait(10)

    class Noting(FakeGroup):
        def broadcast(self, *_, **__):
            sent.set()

    engines = Blocking(network, ["collector 0"])
    way = NcclTransport(torch.float32, 2**20, 1, PushGroups.one, lambda *_: Noting(2))
    push(weights().items(), [engines], 1, way)


def test_what_an_engine_raises_reaches_the_trainer():
    network = FakeNetwork()

    class Refusing(FakeEngines):
        def receive(self, _):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        push(weights().items(), [Refusing(network, ["collector 0"])], 1, transport(network))


def test_pieces_are_gathered_one_after_the_other():
    """Of weights that are gathered parameter by parameter, no more than two pieces are held."""
    network, made, most = FakeNetwork(), [], 0

    def gathered():
        nonlocal most
        for number in range(20):
            tensor = torch.full((16,), float(number))
            made.append(weakref.ref(tensor))
            most = max(most, sum(one() is not None for one in made))
            yield str(number), tensor

    push(gathered(), [FakeEngines(network, ["collector 0"])], 1, transport(network, piece_bytes=32))
    assert most <= 3, "the one that is sent, the one that waits, and the one that comes"
    [group] = network.groups.values()
    firsts = [float(tensor[0]) for tensor in group.sent]
    assert all(late - early == 1 for early, late in pairwise(firsts))


def test_handles_are_named_beside_the_tensors_they_find():
    told = Manifest.of([("norm", torch.ones(4))], handles=[{"GPU-1": ("where",)}]).update_info(plain=False)
    assert told["ipc_handles"] == [{"GPU-1": ("where",)}]
    assert told["names"] == ["norm"]


def test_the_host_is_the_way_of_a_run_that_names_none():
    config = RunConfig(model=ModelConfig(), push=PushConfig(bucket_mib=3))
    assert config.push.backend is PushBackend.host
    assert transport_of(config) == HostTransport(torch.bfloat16, 3 * 2**20)
