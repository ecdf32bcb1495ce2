"""One optimizer step: micro-batches, backward, sum over ranks, clip, AdamW.

Written for a `torch.distributed` process group, which the caller sets up; one rank is the special
case. Every rank learns from its own shard of the step's rows.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tensordict import TensorDictBase
from torch import Tensor, distributed
from torch.nn.utils import clip_grads_with_norm_

from expert_iteration.algorithms import Advantage, objective_of
from expert_iteration.batching import REFERENCE, MicroBatch, micro_batches
from expert_iteration.config import RunConfig
from expert_iteration.gradients import norm_of, sum_over_ranks
from expert_iteration.guard import Fault, Guard
from expert_iteration.losses import Importance, Scored, StepSize, kl_estimate, step_loss
from expert_iteration.moments import load_moments, save_moments
from expert_iteration.policy import Policy
from expert_iteration.schedules import kl_coefficient, rate_factor
from expert_iteration.types import Metrics

LOSS_METRICS = ("loss/total", "loss/objective", "loss/kl", "train/entropy", "train/log_ratio")
"""Means over the step. `loss/kl` is not yet multiplied by its coefficient; `train/log_ratio` is the
mean of log pi - log pi_old: 0 just after a push, growing with the distance from the sampler."""

IMPORTANCE_SUMS = ("clipped", "weight", "weight_squared")
"""Over the response tokens of a step, for losses with importance weights."""


@dataclass(frozen=True, slots=True)
class Step:
    """What all micro-batches of an optimizer step have in common."""

    size: StepSize
    baseline: float
    """Mean advantage."""
    kl_coefficient: float


def importance_metrics(tokens: int, clipped: float, weight: float, weight_squared: float) -> Metrics:
    """From the IMPORTANCE_SUMS of a step with `tokens` response tokens.

    `train/ess` is the effective sample size of the weights (sum w)^2 / sum w^2, as a share of the tokens.
    """
    return {
        "train/clip_fraction": clipped / tokens,
        "train/ess": weight**2 / (tokens * weight_squared) if weight_squared else 0.0,
    }


class Learner:
    """The trained model and its optimizer.

    Nothing here is random, as dropout is off, so that there is no random state to save.
    """

    def __init__(self, config: RunConfig, device: str | torch.device = "cpu", world_size: int = 1) -> None:
        self.policy = Policy(config, device)
        self.steps = 0
        """Optimizer steps of the run so far, skipped ones included."""
        self.version = 0
        """Policy version that the engines got last; rows tell theirs, and so how old they are."""
        self._config = config
        self._objective = objective_of(config)
        self._restarted_at = 0
        """Value of `steps` at the last restart, from where the warm-up counts."""
        self._guard = Guard()
        self._world_size = world_size
        self.reset_optimizer()

    def reset_optimizer(self) -> None:
        """Forget the moments of AdamW. The schedule goes on, and its warm-up does not come again."""
        options = self._config.optimizer
        self._optimizer = torch.optim.AdamW(
            self.policy.trained.values(),
            lr=options.learning_rate,
            betas=(options.beta1, options.beta2),
            weight_decay=options.weight_decay,
            fused=True,
        )

    def restart(self) -> None:
        """Go back to the initial weights with a fresh optimizer, as if no step had been taken."""
        self.policy.restart()
        self.reset_optimizer()
        self._restarted_at = self.steps
        self._guard.restart()

    def learn(
        self, rows: Sequence[TensorDictBase], progress: float, peak_rate: float | None = None
    ) -> Metrics:
        """Take one optimizer step; `rows` is this rank's shard of it and may be empty.

        `progress` is the share of the schedule that lies behind, `peak_rate` its highest learning rate
        (None: optimizer.learning_rate). The metrics are those of the whole step and equal on all ranks. A
        step that the guard leaves out, or that holds no response token, leaves the weights and the moments
        alone and reports `train/skipped` 1.

        Raises:
            Diverged: optimizer.max_skipped steps in a row were left out.
        """
        options = self._config.optimizer
        peak = options.learning_rate if peak_rate is None else peak_rate
        rate = peak * rate_factor(options, self.steps - self._restarted_at, progress)
        batches = micro_batches(rows, self._config.micro_batch_tokens)
        size, baseline, counts = self._measure(batches)
        step = Step(size, baseline, kl_coefficient(self._config.loss, progress))
        losses = self._backward(batches, step)
        loss, grad_norm = losses["loss/total"], self._gradient_norm()
        empty = counts["train/response_tokens"] == 0
        fault = None if empty else self._guard.judge(self.steps, loss, grad_norm, options)
        if not empty and fault is None:
            self._update(rate, grad_norm)
        self._optimizer.zero_grad()
        self.steps += 1
        self._guard.give_up(loss, grad_norm, options)
        return {
            **losses,
            **counts,
            "train/grad_norm": grad_norm,
            "train/learning_rate": rate,
            "train/skipped": float(empty or fault is not None),
            "train/spikes": float(fault is Fault.SPIKE),
        }

    def save(self, folder: Path, rank: int = 0) -> None:
        """Write what `load` needs: a share of the moments, and if first, all the rest. All ranks must."""
        self.policy.save(folder / "model", rank)
        save_moments(self._optimizer, self.policy.trained, folder, rank, self._world_size)
        if rank > 0:
            return
        counts = {"steps": self.steps, "restarted_at": self._restarted_at, "ranks": self._world_size}
        state = counts | {"guard": asdict(self._guard)}
        (folder / "trainer.json").write_text(json.dumps(state))

    def load(self, folder: Path) -> None:
        """Go on exactly where `save` was called by every rank, however many they were.

        Raises:
            ConfigError: the model of `folder` cannot be read.
        """
        self.policy.load(folder / "model")
        self.reset_optimizer()
        state = json.loads((folder / "trainer.json").read_text())
        load_moments(self._optimizer, self.policy.trained, folder, state["ranks"])
        self.steps, self._restarted_at = state["steps"], state["restarted_at"]
        self._guard = Guard(**state["guard"])

    def _measure(self, batches: Sequence[MicroBatch]) -> tuple[StepSize, float, Metrics]:
        """Size of the step, mean of its advantages, and counts for the log."""
        local = [
            sum(float(batch.advantages_B.sum()) for batch in batches),
            sum(len(batch.row_N) for batch in batches),
            sum(len(batch.index) for batch in batches),
            sum(int(batch.lengths_B.sum()) for batch in batches),
            sum(batch.tokens_BT.numel() for batch in batches),
        ]
        total = self._sum_over_ranks(torch.tensor(local, dtype=torch.float64, device=self.policy.device))
        advantages, *numbers = total.tolist()
        responses, sequences, tokens, padded = (int(number) for number in numbers)
        return (
            StepSize(max(1, responses), sequences),
            advantages / max(1, sequences),
            {
                "train/advantage": advantages / max(1, sequences),
                "train/response_tokens": responses,
                "train/sequences": sequences,
                "train/tokens": tokens,
                "train/padding": 1 - tokens / max(1, padded),
            },
        )

    def _backward(self, batches: Sequence[MicroBatch], step: Step) -> Metrics:
        sums = torch.zeros(len(LOSS_METRICS) + len(IMPORTANCE_SUMS), device=self.policy.device)
        for batch in self.policy.joint(batches):
            scored, entropy_N = self._score(batch, step)
            loss, values = self._loss(scored, batch.weights_B, step)
            loss.backward()
            with torch.no_grad():
                means = [entropy_N.sum(), (scored.logprobs_N - scored.sampled_N).sum()]
                means = [total / step.size.tokens for total in means]
                sums += torch.cat([values, torch.stack(means), self._importance(scored)])
        found = self._sum_over_ranks(sums).tolist()
        metrics = dict(zip(LOSS_METRICS, found, strict=False))
        if self._objective.off_policy:
            sums_of = dict(zip(IMPORTANCE_SUMS, found[len(LOSS_METRICS) :], strict=True))
            metrics |= importance_metrics(tokens=step.size.tokens, **sums_of)
        return metrics

    def _score(self, batch: MicroBatch, step: Step) -> tuple[Scored, Tensor]:
        """What the loss reads of a micro-batch, and the entropy of its tokens."""
        logprobs_N, entropy_N = self.policy(batch)
        centred = self._objective.advantage is Advantage.BATCH
        scored = Scored(
            logprobs_N=logprobs_N,
            sampled_N=batch.sampled_N,
            reference_N=batch.reference_N,
            row_N=batch.row_N,
            responses_B=batch.responses_B,
            advantages_B=batch.advantages_B - step.baseline * centred,
            stale_B=self.version - batch.versions_B > 1,
        )
        return scored, entropy_N

    def _loss(self, scored: Scored, weights_B: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """This micro-batch's part of the step's loss, and [loss, objective, KL] for the log."""
        options = self._config.loss
        objective = step_loss(self._objective.loss, scored, options, step.size, weights_B)
        measured = scored.reference_N is not None or options.kl_coefficient
        kl = self._kl(scored, weights_B, step.size) if measured else torch.zeros_like(objective)
        loss = objective + step.kl_coefficient * kl
        return loss, torch.stack([loss, objective, kl]).detach()

    def _kl(self, scored: Scored, weights_B: Tensor, size: StepSize) -> Tensor:
        """Mean over the step's response tokens, whatever the normalization of the objective."""
        assert scored.reference_N is not None, f"loss.kl_coefficient is set, but rows lack {REFERENCE}"
        estimate_N = kl_estimate(self._config.loss.kl_estimator, scored.logprobs_N, scored.reference_N)
        return (weights_B[scored.row_N] / size.tokens * estimate_N).sum()

    def _importance(self, scored: Scored) -> Tensor:
        """The IMPORTANCE_SUMS of a micro-batch; zeros when the loss has no importance weights."""
        if not self._objective.off_policy:
            return scored.logprobs_N.new_zeros(len(IMPORTANCE_SUMS))
        options = self._config.loss
        importance = Importance.of(scored, options.importance_cap)
        weight_N = importance.ratio_N * importance.weight_N
        high = 1 + (options.clip_high or options.clip)
        outside_N = (importance.ratio_N < 1 - options.clip) | (importance.ratio_N > high)
        capped_N = importance.weight_N >= options.importance_cap
        return torch.stack([(outside_N | capped_N).sum(), weight_N.sum(), weight_N.square().sum()])

    def _gradient_norm(self) -> float:
        """Global norm of the gradient of the whole step, after it is summed over the ranks."""
        parameters = list(self.policy.trained.values())
        if self._world_size > 1 and not self.policy.sharded:
            sum_over_ranks(parameters)
        return norm_of(parameters)

    def _update(self, rate: float, grad_norm: float) -> None:
        clip_grads_with_norm_(
            self.policy.trained.values(), self._config.optimizer.max_grad_norm, torch.tensor(grad_norm)
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        if self._world_size > 1:
            distributed.all_reduce(values)
        return values
