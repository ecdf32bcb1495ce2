"""Check values and identities of the losses."""

import pytest
import torch

from expert_iteration.config import KLEstimator, Normalization
from expert_iteration.losses import StepSize, exact_kl, kl_estimate, sft_loss, token_weights


def gradient(normalization: Normalization, lengths: list[int], size: StepSize) -> torch.Tensor:
    """Of the loss with respect to each log-prob of one micro-batch with responses of `lengths`."""
    logprobs_N = torch.zeros(sum(lengths), requires_grad=True)
    responses_B = torch.tensor(lengths)
    weights_B = token_weights(normalization, size, responses_B, torch.ones(len(lengths)))
    sft_loss(logprobs_N, weights_B.repeat_interleave(responses_B)).backward()
    assert logprobs_N.grad is not None
    return logprobs_N.grad


@pytest.mark.parametrize("normalization", Normalization)
@pytest.mark.parametrize(("length", "value"), [(1, -0.25), (42, -0.25 / 42)])
def test_two_micro_batches_of_two_rows_give_the_published_gradient(
    normalization: Normalization, length: int, value: float
) -> None:
    size = StepSize(tokens=4 * length, sequences=4)
    found = gradient(normalization, [length, length], size)
    torch.testing.assert_close(found, torch.full((2 * length,), value))


def test_token_normalization_gives_every_token_the_same_say() -> None:
    found = gradient(Normalization.token, [1, 3], StepSize(tokens=4, sequences=2))
    torch.testing.assert_close(found, torch.full((4,), -1 / 4))


def test_sequence_normalization_gives_every_sequence_the_same_say() -> None:
    found = gradient(Normalization.sequence, [1, 3], StepSize(tokens=4, sequences=2))
    torch.testing.assert_close(found, torch.tensor([-1 / 2, -1 / 6, -1 / 6, -1 / 6]))


@pytest.mark.parametrize("normalization", Normalization)
def test_an_importance_weight_scales_its_row_alone(normalization: Normalization) -> None:
    size, lengths = StepSize(tokens=6, sequences=2), torch.tensor([2, 4])
    plain = token_weights(normalization, size, lengths, torch.ones(2))
    weighted = token_weights(normalization, size, lengths, torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(weighted, plain * torch.tensor([0.5, 1.0]))


def test_an_empty_response_has_a_finite_weight() -> None:
    weights_B = token_weights(Normalization.sequence, StepSize(3, 2), torch.tensor([0, 3]), torch.ones(2))
    assert weights_B.isfinite().all()


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
