"""What an answer earns: check values, and laws of the group."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from expert_iteration.advantages import advantages, group_advantages, optimal_value
from expert_iteration.algorithms import Advantage
from expert_iteration.types import Finish, Group, Outcome, Prompt, Rollout, Ticket, Verdict

C, W, T = Outcome.CORRECT, Outcome.WRONG, Outcome.TIMEOUT
rewards = st.lists(st.floats(0, 1), min_size=2, max_size=16)


def group_of(*outcomes: Outcome, value: float | None = None) -> Group:
    rollouts = tuple(Rollout(i, (1,), (0.0,), "", Finish.STOP, 0, 0) for i in range(len(outcomes)))
    verdicts = tuple(Verdict(outcome, "") for outcome in outcomes)
    prompt = Prompt(0, "q", "1", "q", (1,), "boxed", value=value)
    return Group(Ticket(0, 1, prompt), rollouts, verdicts, tuple(float(one.success) for one in verdicts))


def test_the_published_group_has_its_published_advantage() -> None:
    found = group_advantages(torch.tensor([0.2, 0.5, 0.0, 0.4]), normalize_std=True)
    assert found[0].item() == pytest.approx(-0.3382, abs=1e-4)


@given(rewards, st.booleans())
def test_group_advantages_sum_to_zero(values: list[float], normalize_std: bool) -> None:
    found = group_advantages(torch.tensor(values, dtype=torch.float64), normalize_std)
    assert found.sum().item() == pytest.approx(0, abs=1e-9)


def test_without_the_standard_deviation_only_the_mean_leaves() -> None:
    found = group_advantages(torch.tensor([1.0, 0.0, 0.0, 1.0]), normalize_std=False)
    assert found.tolist() == [0.5, -0.5, -0.5, 0.5]


def test_answers_that_were_not_judged_are_no_part_of_the_group() -> None:
    found = advantages(group_of(C, T, W, W), Advantage.GROUP, normalize_std=False)
    assert found == pytest.approx({0: 2 / 3, 2: -1 / 3, 3: -1 / 3})


def test_a_group_without_a_verdict_earns_nothing() -> None:
    assert advantages(group_of(T, T), Advantage.GROUP, normalize_std=True) == {}


@pytest.mark.parametrize(
    ("kind", "earned"),
    [
        (Advantage.ONE, {0: 1.0, 1: 1.0}),
        (Advantage.REWARD, {0: 1.0, 1: 0.0}),
        (Advantage.BATCH, {0: 1.0, 1: -1.0}),
        (Advantage.VALUE, {0: 0.75, 1: -0.25}),
    ],
)
def test_each_kind_of_advantage(kind: Advantage, earned: dict[int, float]) -> None:
    assert advantages(group_of(C, W, value=0.25), kind, normalize_std=True) == earned


def test_the_optimal_value_of_one_success_in_eight() -> None:
    assert optimal_value(torch.tensor([1.0] + [0.0] * 7), beta=0.5).item() == pytest.approx(0.29351, abs=1e-5)


@given(rewards, st.floats(0.01, 100))
def test_the_optimal_value_lies_between_the_mean_and_the_maximum(values: list[float], beta: float) -> None:
    rewards_K = torch.tensor(values, dtype=torch.float64)
    found = optimal_value(rewards_K, beta).item()
    assert rewards_K.mean().item() - 1e-6 <= found <= rewards_K.max().item() + 1e-6
