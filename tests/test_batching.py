"""Rows hold what was sampled, and micro-batches lose nothing of it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tensordict import TensorDict

from expert_iteration import batching
from expert_iteration.batching import (
    REFERENCE,
    RESPONSE,
    SAMPLED,
    TOKENS,
    WEIGHT,
    flatten_rows,
    group_rows,
    micro_batches,
    stack,
    unflatten_rows,
)
from expert_iteration.types import Finish, Group, Outcome, Prompt, Rollout, Ticket, Verdict


def group(responses: list[tuple[int, ...]], outcomes: list[Outcome] | None = None) -> Group:
    """The answers `responses` to the prompt (5, 6, 7), all right unless `outcomes` says otherwise."""
    outcomes = outcomes or [Outcome.CORRECT] * len(responses)
    rollouts = tuple(
        Rollout(i, ids, tuple(-0.5 - i for _ in ids), "text", Finish.STOP, version_start=3, version_end=4)
        for i, ids in enumerate(responses)
    )
    prompt = Prompt(id=11, question="q", gold="g", text="t", token_ids=(5, 6, 7), style="boxed")
    verdicts = tuple(Verdict(outcome, "") for outcome in outcomes)
    rewards = tuple(float(verdict.success) for verdict in verdicts)
    return Group(Ticket(group_id=9, iteration=0, prompt=prompt), rollouts, verdicts, rewards)


def rows_in(one: Group, fingerprints: Sequence[int] | None = None) -> list[TensorDict]:
    """Rows of `one`, whose advantages are 0.5 more than their positions."""
    count = len(one.rollouts)
    return group_rows(one, fingerprints or range(count), {i: i + 0.5 for i in range(count)})


def rows_of(lengths: list[int]) -> list[TensorDict]:
    return rows_in(group([tuple(range(20, 20 + n)) for n in lengths]))


def test_a_row_holds_prompt_and_response_as_sampled() -> None:
    [row] = rows_in(group([(8, 9, 2)]), [-(2**63)])
    assert row[TOKENS].tolist() == [5, 6, 7, 8, 9, 2]
    assert row[RESPONSE].tolist() == [False] * 3 + [True] * 3
    assert row[SAMPLED].tolist() == [0.0] * 3 + [-0.5] * 3
    assert row[batching.REWARD].tolist() == [1.0] and row[batching.SUCCESS].tolist() == [True]
    names = ("group_id", "group_size", "prompt_id", "rollout_index", "policy_version", "fingerprint")
    assert [row[name].item() for name in names] == [9, 1, 11, 0, 3, -(2**63)]
    assert all(row[name].dtype == torch.int64 and row[name].shape == () for name in names)


def test_abstentions_leave_the_group_and_its_size() -> None:
    outcomes = [Outcome.WRONG, Outcome.TIMEOUT, Outcome.CORRECT, Outcome.ERROR]
    rows = rows_in(group([(8,), (8,), (9,), (9,)], outcomes), [1, 2, 3, 4])
    assert [row["rollout_index"].item() for row in rows] == [0, 2]
    assert [row["fingerprint"].item() for row in rows] == [1, 3]
    assert [row["reward"].item() for row in rows] == [0.0, 1.0]
    assert [row["advantage"].item() for row in rows] == [0.5, 2.5]
    assert {row["group_size"].item() for row in rows} == {2}


def test_a_stack_keeps_ragged_rows() -> None:
    stacked = stack(rows_of([1, 4]))
    assert stacked.batch_size == (2,)
    assert [len(row[TOKENS]) for row in stacked.unbind(0)] == [4, 7]


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 120))
def test_micro_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    rows = rows_of(lengths)
    batches = micro_batches(rows, budget)
    assert sorted(i for batch in batches for i in batch.index) == list(range(len(rows)))
    for batch in batches:
        assert batch.tokens_BT.numel() <= budget or len(batch.index) == 1
        for b, i in enumerate(batch.index):
            length, mine = int(batch.lengths_B[b]), batch.row_N == b
            assert torch.equal(batch.tokens_BT[b, :length], rows[i][TOKENS])
            assert not batch.tokens_BT[b, length:].any()
            assert torch.equal(batch.position_N[mine], rows[i][RESPONSE].nonzero().squeeze(-1))
            assert torch.equal(batch.sampled_N[mine], rows[i][SAMPLED][rows[i][RESPONSE]])
            assert batch.responses_B[b] == mine.sum() == lengths[i]


def test_a_response_of_pad_tokens_is_still_a_response() -> None:
    [batch] = micro_batches(rows_in(group([(0, 0, 0), (4, 0)]), [1, 2]), 100)
    assert batch.responses_B.tolist() == [3, 2]
    assert batch.position_N.tolist() == [3, 4, 5, 3, 4]


def test_weights_and_reference_reach_the_micro_batch_when_rows_have_them() -> None:
    rows = rows_of([2, 1])
    for i, row in enumerate(rows):
        row[REFERENCE] = torch.full((len(row[TOKENS]),), -float(i + 1))
        row[WEIGHT] = torch.tensor(0.5 * (i + 1))
    [batch] = micro_batches(rows, 100)
    assert batch.weights_B.tolist() == [0.5, 1.0]
    assert batch.reference_N is not None and batch.reference_N.tolist() == [-1, -1, -2]


def test_without_weights_and_reference_every_row_counts_once() -> None:
    [batch] = micro_batches(rows_of([2, 1]), 100)
    assert batch.weights_B.tolist() == [1.0, 1.0]
    assert batch.reference_N is None


@pytest.mark.parametrize("lengths", [[], [4], [3, 3], [1, 5, 0]])
def test_rows_come_back_from_a_file_exactly(lengths: list[int], tmp_path: Path) -> None:
    rows = rows_of(lengths)
    save_file(flatten_rows(rows), tmp_path / "rows.safetensors")
    restored = unflatten_rows(load_file(tmp_path / "rows.safetensors"))
    assert len(restored) == len(rows)
    for row, back in zip(rows, restored, strict=True):
        leaves, others = dict(row.items(True, True)), dict(back.items(True, True))
        assert leaves.keys() == others.keys()
        assert all(
            torch.equal(leaves[key], others[key]) and leaves[key].dtype == others[key].dtype for key in leaves
        )
