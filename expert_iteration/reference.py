"""The frozen model that a KL term holds the policy close to."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import torch
from tensordict import TensorDictBase
from torch import Tensor
from transformers import PreTrainedModel

from expert_iteration.batching import GROUP_ID, micro_batches, unpad
from expert_iteration.config import RunConfig
from expert_iteration.model import load_model, response_log_probs

HOST = "cpu"


class ReferenceModel:
    """The initial weights of the run, computing exactly as the learner does, never trained."""

    def __init__(self, config: RunConfig, device: str | torch.device = "cpu") -> None:
        frozen = replace(config.model, gradient_checkpointing=False)
        self.model = load_model(frozen, device).requires_grad_(False)
        self._device = device
        self._config = config

    def rest(self) -> None:
        """Leave the device to others until the next call, where placement.reference.offload says so."""
        if self._config.placement.reference.offload:
            self.model.to(HOST)
            torch.cuda.empty_cache()

    def log_probs(self, rows: Sequence[TensorDictBase]) -> list[Tensor]:
        """log pi_ref of the response tokens of each row, in nats: float32 [T] on CPU, 0 on the prompt.

        Rows of one group stand side by side, and each group is computed apart: sums round differently in
        batches of other shapes, and which groups arrive together is a matter of time.
        """
        self.model.to(self._device)
        groups = groupby(rows, key=lambda row: int(row[GROUP_ID]))
        return [score for _, group in groups for score in score_rows(self.model, list(group), self._config)]


@torch.no_grad()
def score_rows(model: PreTrainedModel, rows: Sequence[TensorDictBase], config: RunConfig) -> list[Tensor]:
    """Log-probs of the response tokens of each row under `model`, as `ReferenceModel.log_probs` has them."""
    cuts = micro_batches(rows, config.micro_batch_tokens)
    scores = (response_log_probs(model, cut.to(model.device), config.model.autocast) for cut in cuts)
    return unpad(cuts, [logprobs_N.cpu() for logprobs_N, _ in scores])
