"""Rollouts as TensorDicts, and TensorDicts as padded micro-batches.

One rollout is one *row*, a TensorDict without batch dimensions. This is the schema, written once:

| key                          | dtype, shape    | meaning                                              |
|------------------------------|-----------------|------------------------------------------------------|
| `("tokens", "full")`         | int64 [T]       | prompt + response as sampled, never re-tokenised     |
| `("masks", "response")`      | bool [T]        | True on the response, sampled end of sequence included |
| `("log_probs", "sampled")`   | float32 [T]     | log pi_old of each response token; 0 on the prompt   |
| `("log_probs", "reference")` | float32 [T]     | log pi_ref likewise; only when a KL term is asked for |
| `reward`, `success`          | float32, bool [1] | shaped reward in [0, 1], and whether it is correct  |
| `advantage`                  | float32 []      | what the response earns in the loss; 1 for imitation |
| `group_id`, `group_size`     | int64 []        | the visit, and how many of its rows will arrive      |
| `prompt_id`, `rollout_index` | int64 []        | the question, and the position in its group          |
| `policy_version`             | int64 []        | version that sampled the first token                 |
| `fingerprint`                | int64 []        | equal for answers that count as duplicates           |
| `pass_rate`                  | float32 []      | share of successful answers in its group             |
| `priority_weight`            | float32 []      | importance weight; set by a prioritised buffer only  |

Masks come from lengths, never from comparing with the pad or end-of-sequence id.

Shape suffixes: B rows of a micro-batch, T padded length, N response tokens of all its rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TypeAlias

import torch
from tensordict import LazyStackedTensorDict, TensorDict, TensorDictBase, lazy_stack
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from expert_iteration.types import Group, Rollout

Key: TypeAlias = str | tuple[str, str]

TOKENS: Key = ("tokens", "full")
RESPONSE: Key = ("masks", "response")
SAMPLED: Key = ("log_probs", "sampled")
REFERENCE: Key = ("log_probs", "reference")
REWARD: Key = "reward"
SUCCESS: Key = "success"
ADVANTAGE: Key = "advantage"
GROUP_ID: Key = "group_id"
GROUP_SIZE: Key = "group_size"
PROMPT_ID: Key = "prompt_id"
ROLLOUT_INDEX: Key = "rollout_index"
POLICY_VERSION: Key = "policy_version"
PASS_RATE: Key = "pass_rate"
FINGERPRINT: Key = "fingerprint"
WEIGHT: Key = "priority_weight"


def group_rows(
    group: Group, fingerprints: Sequence[int], advantages: Mapping[int, float]
) -> list[TensorDict]:
    """One row per rollout of `group` that was judged; abstentions leave the group.

    `fingerprints[i]` (a signed 64-bit number) and `advantages[i]` belong to `group.rollouts[i]`.
    """
    assert len(fingerprints) == len(group.rollouts) == len(group.verdicts)
    judged = group.judged
    shared = {
        GROUP_ID: torch.tensor(group.ticket.group_id),
        GROUP_SIZE: torch.tensor(len(judged)),
        PROMPT_ID: torch.tensor(group.ticket.prompt.id),
        PASS_RATE: torch.tensor(fmean([group.verdicts[i].success for i in judged] or [0.0])),
    }
    prompt = group.ticket.prompt.token_ids
    return [
        TensorDict(
            {
                **_sequence(prompt, group.rollouts[i]),
                **shared,
                REWARD: torch.tensor([group.rewards[i]]),
                SUCCESS: torch.tensor([group.verdicts[i].success]),
                ADVANTAGE: torch.tensor(advantages[i]),
                ROLLOUT_INDEX: torch.tensor(group.rollouts[i].index),
                POLICY_VERSION: torch.tensor(group.rollouts[i].version_start),
                FINGERPRINT: torch.tensor(fingerprints[i], dtype=torch.int64),
            }
        )
        for i in judged
    ]


def _sequence(prompt: tuple[int, ...], rollout: Rollout) -> dict[Key, Tensor]:
    assert prompt, "an empty prompt has no token to predict the first response token from"
    assert len(rollout.log_probs) == len(rollout.token_ids)
    tokens = torch.tensor(prompt + rollout.token_ids)
    sampled = torch.zeros(len(tokens))
    sampled[len(prompt) :] = torch.tensor(rollout.log_probs)
    return {TOKENS: tokens, RESPONSE: torch.arange(len(tokens)) >= len(prompt), SAMPLED: sampled}


def stack(rows: Sequence[TensorDictBase]) -> LazyStackedTensorDict:
    """Lazy stack of [B]: the ragged leaves stay as they are."""
    return lazy_stack(list(rows))


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The rows of one forward pass, right-padded, with their response tokens listed.

    `row_N` and `position_N` say where each response token stands in `tokens_BT`, row by row; every
    other `_N` tensor follows that order.
    """

    index: tuple[int, ...]
    """Position of each of the B rows in the list that was cut."""
    tokens_BT: Tensor
    lengths_B: Tensor
    responses_B: Tensor
    """Response tokens of each row."""
    weights_B: Tensor
    """Importance weight of each row; 1 unless a prioritised buffer chose it."""
    advantages_B: Tensor
    versions_B: Tensor
    """Policy version that sampled each row."""
    row_N: Tensor
    position_N: Tensor
    sampled_N: Tensor
    reference_N: Tensor | None = None

    def to(self, device: torch.device) -> "MicroBatch":
        """The same micro-batch on `device`."""
        if self.tokens_BT.device == device:
            return self
        tensors = {
            name: value.to(device, non_blocking=True)
            for name in self.__slots__
            if isinstance(value := getattr(self, name), Tensor)
        }
        return MicroBatch(index=self.index, **tensors)


def micro_batches(rows: Sequence[TensorDictBase], token_budget: int) -> list[MicroBatch]:
    """Cut `rows` by length so that no forward pass exceeds `token_budget` tokens, padding included.

    The longest rows come first, so that a budget too large for the memory fails at once. A row
    longer than the budget has a micro-batch of its own.
    """
    lengths = [row[TOKENS].shape[0] for row in rows]
    batches: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: -lengths[i]):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= token_budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return [_pad([rows[i] for i in batch], tuple(batch)) for batch in batches]


def empty_micro_batch() -> MicroBatch:
    """One row without weight or response: a pass over it takes part in what ranks do together, no more."""
    none, nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    one, zero = torch.ones(1, dtype=torch.int64), torch.zeros(1)
    return MicroBatch(
        index=(0,),
        tokens_BT=torch.zeros(1, 1, dtype=torch.int64),
        lengths_B=one,
        responses_B=one - 1,
        weights_B=zero,
        advantages_B=zero,
        versions_B=one - 1,
        row_N=none,
        position_N=none,
        sampled_N=nothing,
        reference_N=nothing,
    )


def unpad(batches: Sequence[MicroBatch], values: Sequence[Tensor]) -> list[Tensor]:
    """Values of response tokens, [N] for each micro-batch, by row: [T], 0 on the prompt. All on CPU."""
    found: dict[int, Tensor] = {}
    for batch, values_N in zip(batches, values, strict=True):
        values_BT = torch.zeros(batch.tokens_BT.shape)
        values_BT[batch.row_N, batch.position_N] = values_N
        padded = zip(batch.index, batch.lengths_B.tolist(), values_BT, strict=True)
        found |= {index: row_T[:length].clone() for index, length, row_T in padded}
    return [found[index] for index in range(len(found))]


def _pad(rows: list[TensorDictBase], index: tuple[int, ...]) -> MicroBatch:
    masks = [row[RESPONSE] for row in rows]
    row_N, position_N = pad_sequence(masks, batch_first=True).nonzero(as_tuple=True)
    tokens = [row[TOKENS] for row in rows]
    weights = [row.get(WEIGHT, default=None) for row in rows]

    def responses(key: Key) -> Tensor:
        return torch.cat([row[key][mask] for row, mask in zip(rows, masks, strict=True)])

    return MicroBatch(
        index=index,
        tokens_BT=pad_sequence(tokens, batch_first=True),
        lengths_B=torch.tensor([len(row) for row in tokens]),
        responses_B=torch.bincount(row_N, minlength=len(rows)),
        weights_B=torch.tensor([1.0 if weight is None else weight.item() for weight in weights]),
        advantages_B=torch.stack([row[ADVANTAGE] for row in rows]),
        versions_B=torch.stack([row[POLICY_VERSION] for row in rows]),
        row_N=row_N,
        position_N=position_N,
        sampled_N=responses(SAMPLED),
        reference_N=responses(REFERENCE) if all(REFERENCE in row.keys(True) for row in rows) else None,
    )


_OFFSETS = "/offsets"


def flatten_rows(rows: Sequence[TensorDictBase]) -> dict[str, Tensor]:
    """Rows as a few plain tensors, for a safetensors file. `unflatten_rows` is the exact inverse.

    A leaf of one shape in all rows is stacked under its dotted name; a ragged one is concatenated,
    with its B + 1 boundaries under `name/offsets`. All rows must hold the same keys.
    """
    leaves = [{_dotted(key): value for key, value in row.items(True, True)} for row in rows]
    flat: dict[str, Tensor] = {}
    for name in leaves[0] if leaves else ():
        values = [leaf[name] for leaf in leaves]
        if len({value.shape for value in values}) == 1:
            flat[name] = torch.stack(values)
        else:
            flat[name] = torch.cat(values)
            flat[name + _OFFSETS] = torch.tensor([0] + [len(value) for value in values]).cumsum(0)
    assert all(leaf.keys() == leaves[0].keys() for leaf in leaves), "rows with different keys"
    return flat


def unflatten_rows(flat: dict[str, Tensor]) -> list[TensorDict]:
    """The rows that `flatten_rows` was given, each with memory of its own."""
    columns = {
        tuple(name.split(".")): _split(value, flat.get(name + _OFFSETS))
        for name, value in flat.items()
        if not name.endswith(_OFFSETS)
    }
    return [
        TensorDict(dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)
    ]


def _dotted(key: str | tuple[str, ...]) -> str:
    return key if isinstance(key, str) else ".".join(key)


def _split(value: Tensor, offsets: Tensor | None) -> list[Tensor]:
    if offsets is None:
        return [row.clone() for row in value]
    return [value[start:end].clone() for start, end in pairwise(offsets.tolist())]
