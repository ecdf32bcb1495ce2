"""A row is the same after its way from actor to actor, and may be written to."""

import pickle

import torch
from tensordict import TensorDict

from expert_iteration.actors.parcels import packed, unpacked


def test_a_row_arrives_as_it_was_sent() -> None:
    leaves = {
        ("tokens", "full"): torch.arange(7),
        ("masks", "response"): torch.arange(7) > 3,
        ("log_probs", "sampled"): torch.randn(7),
        "reward": torch.tensor([0.5]),
        "prompt_id": torch.tensor(-(2**62)),
        "empty": torch.zeros(0),
    }
    sent = TensorDict(leaves)
    there = pickle.loads(pickle.dumps(packed([sent, sent])))
    for row in there:
        for array in row.values():
            array.flags.writeable = False  # as Ray hands them out
    first, second = unpacked(there)
    for arrived in (first, second):
        assert set(arrived.keys(include_nested=True, leaves_only=True)) == set(leaves)
        assert arrived.batch_size == sent.batch_size
        for key, leaf in leaves.items():
            assert torch.equal(arrived[key], leaf) and arrived[key].dtype == leaf.dtype
    first["tokens", "full"][0] = 99
    assert second["tokens", "full"][0] == sent["tokens", "full"][0] == 0
