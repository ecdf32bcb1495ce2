"""Losses over the response tokens of an optimizer step, in pure torch.

Every loss is a *sum* that is already divided by a normaliser of the whole step, taken over all its
micro-batches and ranks. Micro-batches and ranks therefore simply add, and the gradient does not
depend on how the step was cut.

Shape suffixes: B rows, N response tokens of all rows, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from expert_iteration.config import KLEstimator, Normalization


@dataclass(frozen=True, slots=True)
class StepSize:
    """What one optimizer step holds, over all micro-batches and ranks."""

    tokens: int
    """Response tokens."""
    sequences: int


def token_weights(
    normalization: Normalization, size: StepSize, responses_B: Tensor, weights_B: Tensor
) -> Tensor:
    """Share of each row's response tokens in the loss, float32 [B].

    `token`: 1 / response tokens of the step (the product B c of CS336 2025, Algorithm 1).
    `sequence`: 1 / (response tokens of the row * sequences of the step). Both are multiplied by the
    importance weights `weights_B`.
    """
    if normalization is Normalization.token:
        return weights_B / size.tokens
    return weights_B / (responses_B.clamp(min=1) * size.sequences)


def sft_loss(logprobs_N: Tensor, weights_N: Tensor) -> Tensor:
    """Weighted negative log-likelihood of the response tokens, a scalar."""
    return -(weights_N * logprobs_N).sum()


def kl_estimate(estimator: KLEstimator, logprobs_N: Tensor, reference_N: Tensor) -> Tensor:
    """Per-token estimate of the divergence between pi and pi_ref, in nats, [N].

    With x = log pi - log pi_ref (http://joschu.net/blog/kl-approx.html): k2 = x^2 / 2, whose
    gradient on pi's own samples is that of KL(pi || ref); k3 = exp(-x) - 1 + x, whose value is that
    KL, and whose gradient is that of KL(ref || pi).
    """
    x_N = logprobs_N - reference_N
    if estimator is KLEstimator.k2:
        return x_N.square() / 2
    return torch.expm1(-x_N) + x_N


def exact_kl(logits_NV: Tensor, reference_NV: Tensor) -> Tensor:
    """KL(pi || ref) over the full vocabulary, in nats, [N]. For small checks: it holds all logits."""
    logprobs_NV = logits_NV.log_softmax(-1)
    return (logprobs_NV.exp() * (logprobs_NV - reference_NV.log_softmax(-1))).sum(-1)
