"""The vLLM side of a weight push: a backend named `host` for vLLM's weight-transfer API.

Imported by vLLM's workers only, by name: importing it is what registers the backend, also in the
worker processes of a tensor-parallel engine.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

from expert_iteration.weights import Bucket, unpack

BACKEND = "host"
EXTENSION = f"{__name__}.WorkerExtension"


@dataclass
class HostInit(WeightTransferInitInfo):
    """Nothing to agree on: the tensors come with the call."""


@dataclass
class HostUpdate(WeightTransferUpdateInfo):
    bucket: Bucket


class HostReceiver(WeightTransferEngine[HostInit, HostUpdate]):
    """Loads buckets of tensors from host memory into the running model."""

    init_info_cls = HostInit
    update_info_cls = HostUpdate
    loading = False

    def init_transfer_engine(self, init_info: HostInit) -> None:
        """Nothing to connect."""

    def start_weight_update(self) -> None:
        if self.loading:
            finalize_layerwise_reload(self.model, self.model_config)
        initialize_layerwise_reload(self.model)
        self.loading = True

    def receive_weights(self, update_info: HostUpdate) -> None:
        self.model.load_weights(unpack(update_info.bucket))

    def finish_weight_update(self) -> None:
        if missing := list(_missing(self.model, self.model_config.hf_text_config.tie_word_embeddings)):
            raise RuntimeError(f"the new weights of {', '.join(missing)} have not arrived; push all again.")
        finalize_layerwise_reload(self.model, self.model_config)
        self.loading = False
        repack_tied(self.model)

    def shutdown(self) -> None:
        """Nothing to release."""


def _missing(model: nn.Module, tied: bool) -> Iterator[str]:
    """Names of the layers that wait for more weights."""
    for name, layer in model.named_modules():
        info = get_layerwise_info(layer)
        size = sum(weight.numel() for weight in layer._parameters.values() if weight is not None)
        if not info.can_load() or size == 0 or (tied and isinstance(layer, ParallelLMHead)):
            continue
        # vLLM pads vocabularies, so an embedding never fills up
        if info.load_numel < (1 if isinstance(layer, VocabParallelEmbedding) else size):
            yield name


def repack_tied(model: nn.Module) -> None:
    """Pack the weights of tied layers anew.

    On CPU vLLM keeps a packed copy of each linear layer's weights, and renews it when the layer
    receives weights. A tied ``lm_head`` receives none, and would go on with the old ones.
    """
    seen: set[int] = set()
    for layer in model.modules():
        weight, method = layer._parameters.get("weight"), getattr(layer, "quant_method", None)
        if weight is None or not isinstance(method, QuantizeMethodBase) or not hasattr(layer, "cpu_linear"):
            continue
        if weight.numel() and weight.data_ptr() in seen:
            method.process_weights_after_loading(layer)
        seen.add(weight.data_ptr())


class WorkerExtension:
    """Named to vLLM as `worker_extension_cls`, which makes every worker import this module."""

    def abandon_weight_update(self) -> None:
        """Forget an update that was started and never finished; vLLM would refuse to start another."""
        self._weight_update_active = False


if BACKEND not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(BACKEND, HostReceiver)
