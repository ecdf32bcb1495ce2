"""The vLLM side of a weight push: backends for vLLM's weight-transfer API, which notice what is missing.

Imported by vLLM's workers only, by name: importing it is what registers the backends, also in the
worker processes of an engine that has some.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)
from vllm.model_executor.model_loader.reload.layerwise import LAYERWISE_INFO, get_layerwise_info

from expert_iteration.choices import PushBackend
from expert_iteration.orphans import end_with_owner
from expert_iteration.vllm_start import RECEIVERS
from expert_iteration.weights import Bucket, unpack


@dataclass
class HostInit(WeightTransferInitInfo):
    """Nothing to agree on: the tensors come with the call."""


@dataclass
class HostUpdate(WeightTransferUpdateInfo):
    bucket: Bucket | dict[str, Any]
    """As it is, or in plain values."""


class Reloading:
    """The frame of an update: the layers wait for their weights, and all must have come before it ends."""

    model: Any
    model_config: Any
    loading = False

    def start_weight_update(self) -> None:
        if self.loading:
            finalize_layerwise_reload(self.model, self.model_config)
        initialize_layerwise_reload(self.model)
        self.loading = True

    def finish_weight_update(self) -> None:
        if missing := list(_missing(self.model, self.model_config.hf_text_config.tie_word_embeddings)):
            raise RuntimeError(f"the new weights of {', '.join(missing)} have not arrived; push all again.")
        finalize_layerwise_reload(self.model, self.model_config)
        self.loading = False
        repack_tied(self.model)


class HostReceiver(Reloading, WeightTransferEngine[HostInit, HostUpdate]):
    """Loads buckets of tensors from host memory into the running model."""

    init_info_cls = HostInit
    update_info_cls = HostUpdate

    def init_transfer_engine(self, init_info: HostInit) -> None:
        """Nothing to connect."""

    def receive_weights(self, update_info: HostUpdate) -> None:
        bucket = update_info.bucket
        self.model.load_weights(unpack(bucket if isinstance(bucket, Bucket) else Bucket.of_plain(bucket)))

    def shutdown(self) -> None:
        """Nothing to release."""


class NcclReceiver(Reloading, NCCLWeightTransferEngine):
    """vLLM's own, which joins a group anew each time it is told to."""


class IpcReceiver(Reloading, IPCWeightTransferEngine):
    """vLLM's own, without its packed mode."""


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

    model_runner: Any

    def abandon_weight_update(self) -> None:
        """Forget an update that was started and never finished; vLLM would refuse to start another."""
        self._weight_update_active = False

    def forget_layers(self) -> None:
        """Let go of the model: vLLM's notes on reloading a layer hold the key of their weak dictionary."""
        for layer in self.model_runner.model.modules():
            LAYERWISE_INFO.pop(layer, None)


for _backend, _receiver in {
    PushBackend.host: HostReceiver,
    PushBackend.nccl: NcclReceiver,
    PushBackend.ipc: IpcReceiver,
}.items():
    if RECEIVERS[_backend] not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(RECEIVERS[_backend], _receiver)
end_with_owner()
