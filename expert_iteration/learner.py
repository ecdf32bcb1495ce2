"""One optimizer step: micro-batches, backward, sum over ranks, clip, AdamW.

Written for a `torch.distributed` process group, which the caller sets up; one rank is the special
case. Every rank holds all weights and learns from its own shard of the step's rows.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from shutil import copyfile

import torch
from safetensors.torch import load_file, save_file
from tensordict import TensorDictBase
from torch import Tensor, distributed
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from expert_iteration.batching import REFERENCE, MicroBatch, micro_batches
from expert_iteration.config import Normalization, OptimizerConfig, RunConfig, Schedule
from expert_iteration.losses import StepSize, kl_estimate, sft_loss, token_weights
from expert_iteration.model import load_model, model_folder, response_log_probs
from expert_iteration.types import Metrics

BUCKET_ELEMENTS = 2**25
"""Gradient elements that are summed over the ranks in one call."""

LOSS_METRICS = ("loss/total", "loss/sft", "loss/kl", "train/entropy", "train/log_ratio")
"""Means over the step. `loss/kl` is not yet multiplied by its coefficient; `train/log_ratio` is the
mean of log pi - log pi_old: 0 just after a push, growing with the distance from the sampler."""

TOKENIZER_FILES = ("added_tokens*", "chat_template*", "merges*", "special_tokens*", "tokenizer*", "vocab*")


def learning_rate(config: OptimizerConfig, step: int, progress: float) -> float:
    """Rate of optimizer step number `step` (from 0) at `progress`, the share of all steps already taken.

    Linear and cosine go from `learning_rate` at progress 0 to zero at 1; the warm-up multiplies.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    decay = {
        Schedule.constant: 1.0,
        Schedule.linear: 1 - progress,
        Schedule.cosine: (1 + math.cos(math.pi * progress)) / 2,
    }
    return config.learning_rate * warmup * decay[config.schedule]


class Learner:
    """The trained model and its optimizer.

    Nothing here is random, as dropout is off, so that there is no random state to save.
    """

    def __init__(self, config: RunConfig, device: str | torch.device = "cpu", world_size: int = 1) -> None:
        self.model = load_model(config.model, device).train()
        self.steps = 0
        """Optimizer steps of the run so far, skipped ones included."""
        self._config = config
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

    def learn(self, rows: Sequence[TensorDictBase], progress: float) -> Metrics:
        """Take one optimizer step; `rows` is this rank's shard of it and may be empty.

        `progress` is the share of the run's optimizer steps already taken. The metrics are those of
        the whole step and equal on all ranks. A step whose loss or gradient is not finite, or that
        holds no response token, leaves the weights alone and reports `train/skipped` 1.
        """
        rate = learning_rate(self._config.optimizer, self.steps, progress)
        batches = micro_batches(rows, self._config.micro_batch_tokens)
        size, counts = self._measure(batches)
        losses = self._backward(batches, size)
        grad_norm = self._gradient_norm()
        applied = counts["train/response_tokens"] > 0 and math.isfinite(losses["loss/total"] + grad_norm)
        if applied:
            self._update(rate, grad_norm)
        self._optimizer.zero_grad()
        self.steps += 1
        return {
            **losses,
            **counts,
            "train/grad_norm": grad_norm,
            "train/learning_rate": rate,
            "train/skipped": float(not applied),
        }

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value of every weight, on its device; a tied output layer is left out."""
        for name, parameter in self.model.named_parameters():
            yield name, parameter.detach()

    def save(self, folder: Path) -> None:
        """Write what `load` needs; with several ranks one of them saves, as all hold the same.

        `model/` is a Hugging Face folder with the tokenizer of the initial model.
        """
        self.model.save_pretrained(folder / "model")
        source = model_folder(self._config.model)
        for file in {file for pattern in TOKENIZER_FILES for file in source.glob(pattern) if file.is_file()}:
            copyfile(file, folder / "model" / file.name)
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        moments = {
            f"{kind}/{names[parameter]}": value
            for parameter, state in self._optimizer.state.items()
            for kind, value in state.items()
        }
        save_file(moments, folder / "trainer.safetensors")
        (folder / "trainer.json").write_text(json.dumps({"steps": self.steps}))

    def load(self, folder: Path) -> None:
        """Go on exactly where `save` was called.

        Raises:
            ConfigError: the model of `folder` cannot be read.
        """
        saved = load_model(replace(self._config.model, path=str(folder / "model")), "cpu")
        self.model.load_state_dict(saved.state_dict())
        self.reset_optimizer()
        parameters = dict(self.model.named_parameters())
        for key, value in load_file(folder / "trainer.safetensors").items():
            kind, name = key.split("/", 1)
            self._optimizer.state[parameters[name]][kind] = value.to(self.model.device, copy=True)
        self.steps = json.loads((folder / "trainer.json").read_text())["steps"]

    def _measure(self, batches: Sequence[MicroBatch]) -> tuple[StepSize, Metrics]:
        local = [
            sum(len(batch.row_N) for batch in batches),
            sum(len(batch.index) for batch in batches),
            sum(int(batch.lengths_B.sum()) for batch in batches),
            sum(batch.tokens_BT.numel() for batch in batches),
        ]
        total = self._sum_over_ranks(torch.tensor(local, device=self.model.device))
        responses, sequences, tokens, padded = total.tolist()
        return StepSize(max(1, responses), sequences), {
            "train/response_tokens": responses,
            "train/sequences": sequences,
            "train/tokens": tokens,
            "train/padding": 1 - tokens / max(1, padded),
        }

    def _backward(self, batches: Sequence[MicroBatch], size: StepSize) -> Metrics:
        sums = torch.zeros(len(LOSS_METRICS), device=self.model.device)
        for batch in batches:
            loss, values = self._loss(batch.to(self.model.device), size)
            loss.backward()
            sums += values
        return dict(zip(LOSS_METRICS, self._sum_over_ranks(sums).tolist(), strict=True))

    def _loss(self, batch: MicroBatch, size: StepSize) -> tuple[Tensor, Tensor]:
        """This micro-batch's part of the step's loss, and of the values of LOSS_METRICS."""
        options = self._config.loss
        logprobs_N, entropy_N = response_log_probs(self.model, batch, self._config.model.autocast)
        weights_B = token_weights(options.normalization, size, batch.responses_B, batch.weights_B)
        sft = sft_loss(logprobs_N, weights_B[batch.row_N])
        kl = self._kl(batch, logprobs_N, size) if options.kl_coefficient else torch.zeros_like(sft)
        loss = sft + options.kl_coefficient * kl
        log_ratio_N = logprobs_N - batch.sampled_N
        with torch.no_grad():
            means = [entropy_N.sum() / size.tokens, log_ratio_N.sum() / size.tokens]
        return loss, torch.stack([loss, sft, kl, *means]).detach()

    def _kl(self, batch: MicroBatch, logprobs_N: Tensor, size: StepSize) -> Tensor:
        """Mean over the step's response tokens, whatever the normalization of the likelihood."""
        assert batch.reference_N is not None, f"loss.kl_coefficient is set, but rows lack {REFERENCE}"
        weights_B = token_weights(Normalization.token, size, batch.responses_B, batch.weights_B)
        estimate_N = kl_estimate(self._config.loss.kl_estimator, logprobs_N, batch.reference_N)
        return (weights_B[batch.row_N] * estimate_N).sum()

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
