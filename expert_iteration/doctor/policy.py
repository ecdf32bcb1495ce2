"""The trainer's side of the comparison: a model that is scored as the learner does, and disturbed on purpose.

Shape suffixes: T length of a row, V vocabulary, N response tokens of all rows, H hidden size.
"""

from collections.abc import Iterator, Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor

from expert_iteration.batching import RESPONSE, TOKENS
from expert_iteration.config import RunConfig
from expert_iteration.model import load_model
from expert_iteration.reference import score_rows

NOISE = 0.01
"""Of the root mean square of a tensor."""


class TrainedPolicy:
    """The model of a configuration, with weights that change as training would change them, but visibly."""

    def __init__(self, config: RunConfig, end: int) -> None:
        """`end` is the tokenizer's end-of-sequence token."""
        self._end = end
        self._config = config
        self._model = load_model(config.model, config.placement.device.value).requires_grad_(False)
        self._noise = torch.Generator().manual_seed(config.seed)

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        return iter(self._model.named_parameters())

    def score(self, rows: Sequence[TensorDictBase]) -> list[Tensor]:
        """Log-probs of the response tokens as the learner computes them: float32 [T], 0 on the prompt."""
        return score_rows(self._model, rows, self._config)

    @torch.no_grad()
    def best(self, row: TensorDictBase) -> Tensor:
        """Highest log-prob of any token in the place of each response token: float32 [responses]."""
        tokens_BT = row[TOKENS][None].to(self._model.device)
        autocast = self._config.model.autocast
        with torch.autocast(self._model.device.type, torch.bfloat16, enabled=autocast):
            logits_TV = self._model(input_ids=tokens_BT, use_cache=False).logits[0, :-1]
        return logits_TV.float().log_softmax(-1).max(-1).values.cpu()[row[RESPONSE][1:]]

    @torch.no_grad()
    def disturb(self) -> None:
        """Change every weight, and what every token means, but not how large the numbers are.

        Each token gets the embedding of the next one, in and out, so that what was computed of any text
        before is worth nothing; then all weights get a little noise. Noise alone, large enough to betray an
        old cache, would drown the comparison in rounding errors.
        """
        tables = (self._model.get_input_embeddings().weight, self._model.get_output_embeddings().weight)
        for table in {id(table): table for table in tables}.values():
            table.copy_(table.roll(1, 0))
        for weight in self._model.parameters():
            noise = torch.randn(weight.shape, generator=self._noise, dtype=torch.float32)
            scale = NOISE * weight.float().square().mean().sqrt()
            weight.add_((scale * noise.to(weight.device)).to(weight.dtype))

    @torch.no_grad()
    def favour_end(self, rows: Sequence[TensorDictBase]) -> None:
        """Make end-of-sequence about as likely as the likeliest other token, so that answers end.

        The output layer's row of it becomes a multiple of the mean hidden state of `rows`.
        """
        head = self._model.get_output_embeddings()
        hidden_NH = torch.cat([self._hidden(row) for row in rows])
        mean_H = hidden_NH.mean(0)
        likeliest = head(hidden_NH).float().max(-1).values.mean()
        head.weight[self._end] = (likeliest * mean_H / mean_H.square().sum()).to(head.weight.dtype)

    def _hidden(self, row: TensorDictBase) -> Tensor:
        tokens_BT = row[TOKENS][None].to(self._model.device)
        hidden_BTH = self._model.get_decoder()(input_ids=tokens_BT, use_cache=False).last_hidden_state
        return hidden_BTH[0, :-1][row[RESPONSE][1:].to(hidden_BTH.device)]
