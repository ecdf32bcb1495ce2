"""One optimizer step: micro-batches, backward, sum over ranks, clip, AdamW.

Written for a `torch.distributed` process group, which the caller sets up; one rank is the special
case. Every rank holds all weights and learns from its own shard of the step's rows.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from shutil import copyfile

import torch
from tensordict import TensorDictBase
from torch import Tensor, distributed
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from expert_iteration.algorithms import Advantage, objective_of
from expert_iteration.batching import REFERENCE, MicroBatch, micro_batches
from expert_iteration.config import ModelConfig, RunConfig
from expert_iteration.guard import Fault, Guard
from expert_iteration.losses import Importance, Scored, StepSize, kl_estimate, step_loss
from expert_iteration.model import load_model, response_log_probs
from expert_iteration.model_files import model_folder
from expert_iteration.moments import load_moments, save_moments
from expert_iteration.schedules import kl_coefficient, rate_factor
from expert_iteration.types import Metrics

BUCKET_ELEMENTS = 2**25
"""Gradient elements that are summed over the ranks in one call."""

LOSS_METRICS = ("loss/total", "loss/objective", "loss/kl", "train/entropy", "train/log_ratio")
"""Means over the step. `loss/kl` is not yet multiplied by its coefficient; `train/log_ratio` is the
mean of log pi - log pi_old: 0 just after a push, growing with the distance from the sampler."""

IMPORTANCE_SUMS = ("clipped", "weight", "weight_squared")
"""Over the response tokens of a step, for losses with importance weights."""

TOKENIZER_FILES = ("added_tokens*", "chat_template*", "merges*", "special_tokens*", "tokenizer*", "vocab*")


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
        self.model = load_model(config.model, device).train()
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
            self.model.parameters(),
            lr=options.learning_rate,
            betas=(options.beta1, options.beta2),
            weight_decay=options.weight_decay,
            fused=True,
        )

    def restart(self) -> None:
        """Go back to the initial weights with a fresh optimizer, as if no step had been taken."""
        self._take_weights(self._config.model)
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

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value of every weight, on its device; a tied output layer is left out."""
        for name, parameter in self.model.named_parameters():
            yield name, parameter.detach()

    def save(self, folder: Path, rank: int = 0) -> None:
        """Write this rank's part of what `load` needs: its share of the moments, and if first, all the rest.

        `model/` is a Hugging Face folder with the tokenizer of the initial model.
        """
        save_moments(self._optimizer, self.model, folder, rank, self._world_size)
        if rank > 0:
            return
        self.model.save_pretrained(folder / "model")
        source = model_folder(self._config.model)
        for file in {file for pattern in TOKENIZER_FILES for file in source.glob(pattern) if file.is_file()}:
            copyfile(file, folder / "model" / file.name)
        counts = {"steps": self.steps, "restarted_at": self._restarted_at, "ranks": self._world_size}
        state = counts | {"guard": asdict(self._guard)}
        (folder / "trainer.json").write_text(json.dumps(state))

    def load(self, folder: Path) -> None:
        """Go on exactly where `save` was called by every rank, however many they were.

        Raises:
            ConfigError: the model of `folder` cannot be read.
        """
        self._take_weights(replace(self._config.model, path=str(folder / "model")))
        self.reset_optimizer()
        state = json.loads((folder / "trainer.json").read_text())
        load_moments(self._optimizer, self.model, folder, state["ranks"])
        self.steps, self._restarted_at = state["steps"], state["restarted_at"]
        self._guard = Guard(**state["guard"])

    def _take_weights(self, config: ModelConfig) -> None:
        self.model.load_state_dict(load_model(config, "cpu").state_dict())

    def _measure(self, batches: Sequence[MicroBatch]) -> tuple[StepSize, float, Metrics]:
        """Size of the step, mean of its advantages, and counts for the log."""
        local = [
            sum(float(batch.advantages_B.sum()) for batch in batches),
            sum(len(batch.row_N) for batch in batches),
            sum(len(batch.index) for batch in batches),
            sum(int(batch.lengths_B.sum()) for batch in batches),
            sum(batch.tokens_BT.numel() for batch in batches),
        ]
        total = self._sum_over_ranks(torch.tensor(local, dtype=torch.float64, device=self.model.device))
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
        sums = torch.zeros(len(LOSS_METRICS) + len(IMPORTANCE_SUMS), device=self.model.device)
        for batch in batches:
            scored, entropy_N = self._score(batch.to(self.model.device), step)
            loss, values = self._loss(scored, batch.weights_B.to(self.model.device), step)
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
        logprobs_N, entropy_N = response_log_probs(self.model, batch, self._config.model.autocast)
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
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if self._world_size > 1:
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            sum_in_buckets([parameter.grad for parameter in parameters])
        return get_total_norm([p.grad for p in parameters if p.grad is not None]).item()

    def _update(self, rate: float, grad_norm: float) -> None:
        clip_grads_with_norm_(
            self.model.parameters(), self._config.optimizer.max_grad_norm, torch.tensor(grad_norm)
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        if self._world_size > 1:
            distributed.all_reduce(values)
        return values


def sum_in_buckets(gradients: Sequence[Tensor]) -> None:
    """Sum each gradient over all ranks, in place, in flat pieces of about BUCKET_ELEMENTS."""
    for _, bucket in groupby(_numbered(gradients), key=itemgetter(0)):
        members = [gradient for _, gradient in bucket]
        flat = torch.cat([gradient.flatten() for gradient in members])
        distributed.all_reduce(flat)
        for gradient, summed in zip(members, flat.split([g.numel() for g in members]), strict=True):
            gradient.copy_(summed.view_as(gradient))


def _numbered(gradients: Sequence[Tensor]) -> Iterator[tuple[tuple[torch.dtype, int], Tensor]]:
    """Each gradient with the key of its bucket: neighbours of one type share one up to its size."""
    before = 0
    for gradient in gradients:
        yield (gradient.dtype, before // BUCKET_ELEMENTS), gradient
        before += gradient.numel()
