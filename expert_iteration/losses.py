"""What the learner minimises, in pure torch: the losses that algorithms.py names, and the KL term.

Every loss is a *sum* that is already divided by a normaliser of the whole optimizer step, taken over all
its micro-batches and ranks. Micro-batches and ranks therefore simply add, and the gradient does not
depend on how the step was cut.

Symbols: pi the trained policy, pi_old the one that sampled, pi_ref the frozen reference, A the advantage
of a response. Shape suffixes: B rows, N response tokens of all rows, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from expert_iteration.algorithms import Loss
from expert_iteration.choices import KLEstimator, Normalization
from expert_iteration.config import LossConfig


@dataclass(frozen=True, slots=True)
class StepSize:
    """What one optimizer step holds, over all micro-batches and ranks."""

    tokens: int
    """Response tokens."""
    sequences: int


@dataclass(frozen=True, slots=True)
class Scored:
    """Response tokens of a micro-batch with all that a loss may read of them."""

    logprobs_N: Tensor
    """log pi, in nats; carries the gradient."""
    sampled_N: Tensor
    """log pi_old."""
    reference_N: Tensor | None
    """log pi_ref, if the loss or a KL term reads it."""
    row_N: Tensor
    """Row of each token."""
    responses_B: Tensor
    """Response tokens of each row."""
    advantages_B: Tensor
    stale_B: Tensor
    """True for rows sampled more than one policy version ago."""

    def per_row(self, values_N: Tensor) -> Tensor:
        """Sums over the response tokens of each row, [B]."""
        return values_N.new_zeros(len(self.responses_B)).index_add(0, self.row_N, values_N)

    @property
    def log_odds_B(self) -> Tensor:
        """l - l_ref: log pi(response) - log pi_ref(response)."""
        assert self.reference_N is not None, "this loss reads reference log-probs, and the rows lack them"
        return self.per_row(self.logprobs_N - self.reference_N)


@dataclass(frozen=True, slots=True)
class Importance:
    """Importance weights of the policy-gradient losses.

    For responses older than one policy version the decoupled form (arXiv 2110.00641; AReaL, arXiv
    2505.24298): the ratio is clipped around pi_prox, the policy of this step, and the distance of
    pi_prox from pi_old enters as a capped weight. Younger ones have pi_prox = pi_old and weight 1.
    """

    ratio_N: Tensor
    """pi / pi_prox; its value is 1 where pi_prox is pi itself, its gradient is not 0."""
    weight_N: Tensor
    """min(pi_prox / pi_old, cap); carries no gradient."""

    @staticmethod
    def of(scored: Scored, cap: float) -> "Importance":
        current_N = scored.logprobs_N.detach()
        proximal_N = torch.where(scored.stale_B[scored.row_N], current_N, scored.sampled_N)
        return Importance(
            ratio_N=(scored.logprobs_N - proximal_N).exp(),
            weight_N=(proximal_N - scored.sampled_N).exp().clamp(max=cap),
        )


def likelihood(scored: Scored, _: LossConfig) -> Tensor:
    """- A log pi, [N]."""
    return -scored.advantages_B[scored.row_N] * scored.logprobs_N


def policy_gradient(scored: Scored, config: LossConfig) -> Tensor:
    """- A log pi with the importance weight of old samples, [N] (REINFORCE; CS336 2025, eq. 28-32)."""
    return Importance.of(scored, config.importance_cap).weight_N * likelihood(scored, config)


def clipped(scored: Scored, config: LossConfig) -> Tensor:
    """- min(w A, clip(w, 1 - e, 1 + e) A), w = pi / pi_old, [N] (arXiv 1707.06347; CS336 2025, eq. 33)."""
    importance = Importance.of(scored, config.importance_cap)
    advantages_N = scored.advantages_B[scored.row_N]
    bounded_N = importance.ratio_N.clamp(1 - config.clip, 1 + (config.clip_high or config.clip))
    return -importance.weight_N * torch.minimum(importance.ratio_N * advantages_N, bounded_N * advantages_N)


def minor_sft(scored: Scored, config: LossConfig) -> Tensor:
    """- log sigmoid(beta (l - l_ref) / length), [B] (arXiv 2408.10642)."""
    mean_B = scored.log_odds_B / scored.responses_B.clamp(min=1)
    return -logsigmoid(config.beta * mean_B)


def regression(scored: Scored, config: LossConfig) -> Tensor:
    """(beta (l - l_ref) - A)^2 with A = r - V*, [B] (A*-PO, arXiv 2505.20686; token sums)."""
    return (config.beta * scored.log_odds_B - scored.advantages_B).square()


BY_TOKEN: dict[Loss, Callable[[Scored, LossConfig], Tensor]] = {
    Loss.LIKELIHOOD: likelihood,
    Loss.POLICY_GRADIENT: policy_gradient,
    Loss.CLIPPED: clipped,
}
BY_ROW: dict[Loss, Callable[[Scored, LossConfig], Tensor]] = {
    Loss.MINOR_SFT: minor_sft,
    Loss.REGRESSION: regression,
}


def step_loss(loss: Loss, scored: Scored, config: LossConfig, size: StepSize, weights_B: Tensor) -> Tensor:
    """This micro-batch's part of the loss of the step, a scalar.

    Losses by row are averaged over the sequences of the step, whatever `loss.normalization` says.
    `weights_B` are the importance weights of a prioritised buffer.
    """
    if loss in BY_ROW:
        return (weights_B / size.sequences * BY_ROW[loss](scored, config)).sum()
    shares_B = token_shares(config, size, scored.responses_B, weights_B)
    return (shares_B[scored.row_N] * BY_TOKEN[loss](scored, config)).sum()


def token_shares(config: LossConfig, size: StepSize, responses_B: Tensor, weights_B: Tensor) -> Tensor:
    """Share of each row's response tokens in the loss, float32 [B].

    `token`: 1 / response tokens of the step (the product B c of CS336 2025, Algorithm 1).
    `sequence`: 1 / (response tokens of the row * sequences of the step).
    `constant`: 1 / (loss.length_divisor * sequences of the step), Dr. GRPO (arXiv 2503.20783).
    All are multiplied by the importance weights `weights_B` of a prioritised buffer.
    """
    if config.normalization is Normalization.token:
        return weights_B / size.tokens
    if config.normalization is Normalization.constant:
        assert config.length_divisor is not None, "checked when the configuration was read"
        return weights_B / (config.length_divisor * size.sequences)
    return weights_B / (responses_B.clamp(min=1) * size.sequences)


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
