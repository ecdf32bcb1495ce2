"""The model that is trained, whichever of its weights are, whole on every rank or sharded over them."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from tensordict import TensorDictBase
from torch import Tensor, distributed, nn

from expert_iteration.algorithms import reads_reference
from expert_iteration.batching import MicroBatch, empty_micro_batch, micro_batches, unpad
from expert_iteration.choices import Sharding
from expert_iteration.config import ModelConfig, RunConfig
from expert_iteration.gathered import save_gathered
from expert_iteration.lora import (
    add_adapters,
    load_adapters,
    merged,
    reset_adapters,
    save_adapters,
    without_adapters,
)
from expert_iteration.model import ResponseScores, Scorer, load_model
from expert_iteration.model_files import copy_tokenizer, model_folder
from expert_iteration.sharding import put, release, shard, whole

GATHER, LEAVE = -1, -2
"""What the first rank asks of the others, besides passes over so many micro-batches."""


class Policy:
    """Sharded, each forward and backward pass is a joint effort, and so is every look at a weight.

    All ranks then make the same calls: those of training by themselves, those of a push because they
    `follow` the first rank, which is `leading` them.
    """

    def __init__(self, config: RunConfig, device: str | torch.device) -> None:
        """With sharding, the process group is there already; weights pass through the host's memory."""
        self._config = config
        self.sharded = config.placement.train.sharding is Sharding.full
        self.model = load_model(config.model, "cpu" if self.sharded else device).train()
        self.device = torch.device(device) if self.sharded else self.model.device
        has_adapters = config.model.lora.rank > 0
        self._adapters = add_adapters(self.model, config.model, config.seed) if has_adapters else None
        self._scores_reference = has_adapters and reads_reference(config)
        autocast = config.model.autocast
        self._scorer = Scorer(self.model, autocast and not self.sharded)
        if self.sharded:
            shard(self._scorer, self._layers(), self.device, autocast, config.placement.train.cpu_offload)

    def _layers(self) -> list[nn.Module]:
        """Those that transformers does not split over devices either."""
        names = self.model._no_split_modules or ()
        return [module for module in self.model.modules() if type(module).__name__ in names]

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The weights that an optimizer may change, by name."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def __call__(self, batch: MicroBatch) -> ResponseScores:
        return self._scorer(batch)

    def joint(self, batches: Sequence[MicroBatch]) -> Iterator[MicroBatch]:
        """`batches`, and empty ones until all ranks have as many, on the device.

        With adapters, they get the log-probs of the reference that rows then lack.
        """
        count = torch.tensor(len(batches), device=self.device)
        if self.sharded:
            distributed.all_reduce(count, distributed.ReduceOp.MAX)
        missing = int(count) - len(batches)
        for cut in (*batches, *[empty_micro_batch()] * missing):
            batch = cut.to(self.device)
            yield replace(batch, reference_N=self._reference(batch)) if self._scores_reference else batch

    @torch.no_grad()
    def _reference(self, batch: MicroBatch) -> Tensor:
        with without_adapters(self.model):
            return self(batch).logprobs_N

    def score(self, rows: Sequence[TensorDictBase]) -> list[Tensor]:
        """log pi of the response tokens of each row, in nats: float32 [T] on CPU, 0 on the prompt."""
        cuts = micro_batches(rows, self._config.micro_batch_tokens)
        self._say(len(cuts))
        return unpad(cuts, self._pass_over(cuts))

    @torch.no_grad()
    def _pass_over(self, cuts: Sequence[MicroBatch]) -> list[Tensor]:
        scores = [self(cut.to(self.device)).logprobs_N.cpu() for cut in cuts]
        release(self._scorer)
        return scores

    def named_weights(self) -> Generator[tuple[str, Tensor]]:
        """Name and value of every weight, whole; a tied output layer is left out, adapters are merged.

        Once begun, and then closed before its end, it gathers the rest nevertheless: others have begun to.
        """
        self._say(GATHER)
        weights = self._whole_weights()
        try:
            while (weight := next(weights, None)) is not None:
                yield weight
        finally:
            for _ in weights:
                pass

    def _whole_weights(self) -> Iterator[tuple[str, Tensor]]:
        if self._adapters is not None:
            yield from merged(self.model)
            return
        for name, weight in self.model.named_parameters():
            yield name, whole(weight.detach())

    @contextmanager
    def leading(self) -> Iterator[None]:
        """For the first rank: within the block the others `follow`, and what it calls they call as well."""
        try:
            yield
        finally:
            self._say(LEAVE)

    def follow(self) -> None:
        """For all other ranks: take part in what the first one does until its block ends."""
        while self.sharded and (order := self._say(LEAVE)) != LEAVE:
            if order == GATHER:
                for _ in self._whole_weights():
                    pass
            else:
                self._pass_over([empty_micro_batch()] * order)

    def _say(self, order: int) -> int:
        """Tell the order of the first rank to all."""
        said = torch.tensor(order, device=self.device)
        if self.sharded:
            distributed.broadcast(said, src=0)
        return int(said)

    def restart(self) -> None:
        """Take the initial weights."""
        if self._adapters is not None:
            reset_adapters(self.model, self._config.seed)
        else:
            self._take(self._config.model)

    def save(self, folder: Path, rank: int) -> None:
        """Write a Hugging Face folder, or that of an adapter, with the tokenizer of the initial model.

        The first rank does; sharded, the others must call it too.
        """
        if self._adapters is not None:
            save_adapters(self.model, self._adapters, folder, rank)
        elif self.sharded:
            save_gathered(self.model, self._whole_weights(), folder, rank)
        elif rank == 0:
            self.model.save_pretrained(folder)
        if rank == 0:
            copy_tokenizer(model_folder(self._config.model), folder)

    def load(self, folder: Path) -> None:
        """Take the weights that `save` wrote.

        Raises:
            ConfigError: the model of `folder` cannot be read.
        """
        if self._adapters is not None:
            load_adapters(self.model, folder)
        else:
            self._take(replace(self._config.model, path=str(folder)))

    def _take(self, config: ModelConfig) -> None:
        loaded = dict(load_model(config, "cpu").named_parameters())
        for name, weight in self.model.named_parameters():
            put(weight, loaded[name])
