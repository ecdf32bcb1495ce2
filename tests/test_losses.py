"""Check values and identities of the losses."""

import math

import pytest
import torch
from torch import Tensor

from expert_iteration.algorithms import Loss
from expert_iteration.choices import KLEstimator, Normalization
from expert_iteration.config import LossConfig
from expert_iteration.losses import (
    BY_ROW,
    BY_TOKEN,
    Importance,
    Scored,
    StepSize,
    exact_kl,
    kl_estimate,
    step_loss,
    token_shares,
)


def scored(
    lengths: list[int],
    ratio: float = 1.0,
    advantages: list[float] | None = None,
    reference: float | None = None,
    stale: bool = False,
) -> Scored:
    """Responses of `lengths`, each token with log pi = -1 and pi / pi_old = `ratio`."""
    tokens = sum(lengths)
    responses_B = torch.tensor(lengths)
    return Scored(
        logprobs_N=torch.full((tokens,), -1.0, dtype=torch.float64, requires_grad=True),
        sampled_N=torch.full((tokens,), -1.0 - math.log(ratio), dtype=torch.float64),
        reference_N=None if reference is None else torch.full((tokens,), reference, dtype=torch.float64),
        row_N=torch.arange(len(lengths)).repeat_interleave(responses_B),
        responses_B=responses_B,
        advantages_B=torch.tensor(advantages or [1.0] * len(lengths), dtype=torch.float64),
        stale_B=torch.full((len(lengths),), stale),
    )


def gradient(loss: Loss, given: Scored, config: LossConfig, size: StepSize | None = None) -> Tensor:
    """Of the step's loss with respect to log pi of each token, when the micro-batch is the whole step."""
    size = size or StepSize(len(given.row_N), len(given.responses_B))
    total = step_loss(loss, given, config, size, torch.ones(len(given.responses_B), dtype=torch.float64))
    return torch.autograd.grad(total, given.logprobs_N)[0]


def config_of(normalization: Normalization, divisor: int = 1) -> LossConfig:
    return LossConfig(normalization, length_divisor=divisor)


def expected(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- normalisation ---


@pytest.mark.parametrize("normalization", [Normalization.token, Normalization.sequence])
@pytest.mark.parametrize(("length", "value"), [(1, -0.25), (42, -0.25 / 42)])
def test_two_micro_batches_of_two_rows_give_the_published_gradient(
    normalization: Normalization, length: int, value: float
) -> None:
    size = StepSize(tokens=4 * length, sequences=4)
    found = gradient(Loss.LIKELIHOOD, scored([length, length]), config_of(normalization), size)
    torch.testing.assert_close(found, expected(*[value] * 2 * length))


@pytest.mark.parametrize(("divisor", "value"), [(1, -0.25), (42, -0.00595)])
def test_a_constant_divisor_gives_the_published_gradient_whatever_the_length(
    divisor: int, value: float
) -> None:
    config = config_of(Normalization.constant, divisor)
    found = gradient(Loss.LIKELIHOOD, scored([1, 3]), config, StepSize(tokens=8, sequences=4))
    torch.testing.assert_close(found, expected(*[value] * 4), rtol=0, atol=3e-6)


def test_token_normalization_gives_every_token_the_same_say() -> None:
    found = gradient(Loss.LIKELIHOOD, scored([1, 3]), config_of(Normalization.token))
    torch.testing.assert_close(found, expected(*[-1 / 4] * 4))


def test_sequence_normalization_gives_every_sequence_the_same_say() -> None:
    found = gradient(Loss.LIKELIHOOD, scored([1, 3]), config_of(Normalization.sequence))
    torch.testing.assert_close(found, expected(-1 / 2, -1 / 6, -1 / 6, -1 / 6))


@pytest.mark.parametrize("normalization", Normalization)
def test_an_importance_weight_scales_its_row_alone(normalization: Normalization) -> None:
    size, lengths, config = StepSize(tokens=6, sequences=2), torch.tensor([2, 4]), config_of(normalization)
    plain = token_shares(config, size, lengths, torch.ones(2))
    weighted = token_shares(config, size, lengths, torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(weighted, plain * torch.tensor([0.5, 1.0]))


@pytest.mark.parametrize("loss", Loss)
def test_an_empty_response_changes_nothing(loss: Loss) -> None:
    size, config = StepSize(3, 2), config_of(Normalization.sequence)
    with_empty = gradient(loss, scored([0, 3], reference=-2.0), config, size)
    without = gradient(loss, scored([3], reference=-2.0), config, size)
    torch.testing.assert_close(with_empty, without)


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("normalization", Normalization)
def test_micro_batches_add_up_to_the_step(loss: Loss, normalization: Normalization) -> None:
    size, config = StepSize(tokens=6, sequences=3), config_of(normalization, 7)
    advantages = [0.5, -1.0, 2.0]
    whole = gradient(loss, scored([1, 2, 3], 1.1, advantages, -2.0), config, size)
    parts = [
        gradient(loss, scored([length], 1.1, [advantage], -2.0), config, size)
        for length, advantage in zip([1, 2, 3], advantages, strict=True)
    ]
    torch.testing.assert_close(torch.cat(parts), whole)


# --- the losses ---


def test_every_loss_has_one_function() -> None:
    assert not set(BY_TOKEN) & set(BY_ROW)
    assert set(BY_TOKEN) | set(BY_ROW) == set(Loss)


def test_raft_on_rewards_of_0_and_1_is_sft_on_the_correct_ones_up_to_a_constant() -> None:
    config = config_of(Normalization.token)
    raft = gradient(Loss.LIKELIHOOD, scored([2, 3], advantages=[0.0, 1.0]), config)
    sft = gradient(Loss.LIKELIHOOD, scored([3]), config)
    torch.testing.assert_close(raft[2:], sft * 3 / 5)
    assert not raft[:2].any()


@pytest.mark.parametrize("advantage", [-2.0, 0.7])
def test_at_a_ratio_of_one_the_clipped_gradient_is_that_of_reinforce(advantage: float) -> None:
    config = config_of(Normalization.token)
    clipped = gradient(Loss.CLIPPED, scored([4], advantages=[advantage]), config)
    torch.testing.assert_close(
        clipped, gradient(Loss.POLICY_GRADIENT, scored([4], advantages=[advantage]), config)
    )
    torch.testing.assert_close(clipped, expected(*[-advantage / 4] * 4))


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.3, 1.0, False),
        (1.1, 1.0, True),
        (0.7, 1.0, True),
        (0.7, -1.0, False),
        (0.9, -1.0, True),
        (1.3, -1.0, True),
    ],
)
def test_the_clip_stops_only_what_has_gone_far_enough(ratio: float, advantage: float, moves: bool) -> None:
    found = gradient(Loss.CLIPPED, scored([1], ratio, [advantage]), config_of(Normalization.token))
    torch.testing.assert_close(found, expected(-ratio * advantage if moves else 0.0))


def test_the_upper_clip_may_be_higher() -> None:
    config = LossConfig(Normalization.token, length_divisor=1, clip=0.2, clip_high=0.4)
    assert gradient(Loss.CLIPPED, scored([1], 1.3), config).item() == pytest.approx(-1.3)
    assert gradient(Loss.CLIPPED, scored([1], 1.5), config).item() == 0


@pytest.mark.parametrize("loss", [Loss.CLIPPED, Loss.POLICY_GRADIENT])
@pytest.mark.parametrize(("ratio", "weight"), [(0.1, 0.1), (1.7, 1.7), (30.0, 2.0)])
def test_old_answers_count_with_their_capped_importance_and_are_clipped_around_the_present(
    loss: Loss, ratio: float, weight: float
) -> None:
    found = gradient(loss, scored([2], ratio, [1.5], stale=True), config_of(Normalization.token))
    torch.testing.assert_close(found, expected(*[-1.5 * weight / 2] * 2))


def test_a_young_answer_has_no_weight_besides_its_ratio() -> None:
    importance = Importance.of(scored([3], ratio=1.7), cap=2.0)
    torch.testing.assert_close(importance.ratio_N, expected(*[1.7] * 3))
    torch.testing.assert_close(importance.weight_N, expected(*[1.0] * 3))


def test_the_gradient_of_minor_sft_is_that_of_its_paper() -> None:
    config = LossConfig(Normalization.token, length_divisor=1, beta=0.7)
    delta, length = 0.4, 5
    found = gradient(Loss.MINOR_SFT, scored([length], reference=-1.0 - delta), config)
    slope = -config.beta * torch.sigmoid(expected(-config.beta * delta))
    torch.testing.assert_close(found.sum(), slope[0])


def test_a_star_po_regresses_the_log_odds_on_the_advantage() -> None:
    config = LossConfig(Normalization.token, length_divisor=1, beta=0.01)
    given = scored([3], advantages=[0.7], reference=-3.0)
    log_odds, residual = 6.0, 0.01 * 6.0 - 0.7
    torch.testing.assert_close(given.log_odds_B.detach(), expected(log_odds))
    total = step_loss(Loss.REGRESSION, given, config, StepSize(3, 1), torch.ones(1))
    assert total.item() == pytest.approx(residual**2)
    torch.testing.assert_close(gradient(Loss.REGRESSION, given, config), expected(*[2 * 0.01 * residual] * 3))


# --- the divergence from the reference ---


@pytest.mark.parametrize("estimator", KLEstimator)
def test_a_kl_estimate_is_zero_at_the_reference_and_positive_elsewhere(estimator: KLEstimator) -> None:
    reference_N = torch.full((5,), -1.0)
    logprobs_N = torch.tensor([-3.0, -1.5, -1.0, -0.5, -0.1])
    estimate_N = kl_estimate(estimator, logprobs_N, reference_N)
    assert estimate_N[2] == 0
    assert (estimate_N[[0, 1, 3, 4]] > 0).all()


def test_kl_estimates_have_their_closed_forms() -> None:
    logprobs_N, reference_N = torch.tensor([-0.3]), torch.tensor([-1.0])
    x = 0.7
    k2 = kl_estimate(KLEstimator.k2, logprobs_N, reference_N).item()
    k3 = kl_estimate(KLEstimator.k3, logprobs_N, reference_N).item()
    assert k2 == pytest.approx(x**2 / 2)
    assert k3 == pytest.approx(2.718281828**-x - 1 + x)


def categorical() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a policy and of a reference over six words."""
    torch.manual_seed(0)
    return torch.randn(1, 6, dtype=torch.float64, requires_grad=True), torch.randn(1, 6, dtype=torch.float64)


def expected_gradient(estimator: KLEstimator, logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Exact expectation, over words drawn from the policy, of the gradient of the estimate."""
    logprobs_V, reference_V = logits.log_softmax(-1)[0], reference.log_softmax(-1)[0]
    estimate_V = kl_estimate(estimator, logprobs_V, reference_V)
    return torch.autograd.grad((logprobs_V.detach().exp() * estimate_V).sum(), logits)[0]


def test_k3_has_the_exact_kl_as_its_mean() -> None:
    logits, reference = categorical()
    logprobs_V = logits.log_softmax(-1)[0]
    k3_V = kl_estimate(KLEstimator.k3, logprobs_V, reference.log_softmax(-1)[0])
    torch.testing.assert_close((logprobs_V.exp() * k3_V).sum(), exact_kl(logits, reference)[0])


def test_the_gradient_of_k2_is_that_of_the_kl_to_the_reference() -> None:
    logits, reference = categorical()
    exact = torch.autograd.grad(exact_kl(logits, reference).sum(), logits)[0]
    torch.testing.assert_close(expected_gradient(KLEstimator.k2, logits, reference), exact)


def test_the_gradient_of_k3_is_that_of_the_kl_from_the_reference() -> None:
    logits, reference = categorical()
    exact = torch.autograd.grad(exact_kl(reference, logits).sum(), logits)[0]
    torch.testing.assert_close(expected_gradient(KLEstimator.k3, logits, reference), exact)
