"""vLLM's engine, configured and started: in this process, or its core in one of its own."""

import os
from typing import TYPE_CHECKING, Any

from expert_iteration.choices import Device, EngineKind, PushBackend
from expert_iteration.config import HOST_PUSH, ConfigError, ModelConfig, PlacementConfig, PushConfig
from expert_iteration.orphans import OWNER

if TYPE_CHECKING:
    from vllm import LLMEngine

ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""Nobody is told of it."""

COMPILED_ON_CPU = 32
"""Compiled matrix products that oneDNN keeps, besides those that each layer holds.

There is one for each number of tokens in a step, and it takes half a MiB: with oneDNN's own limit of 1,024 an
engine would grow for a thousand iterations.
"""

WEIGHT_RECEIVER = "expert_iteration.weight_receiver.WorkerExtension"

RECEIVERS = {PushBackend.host: "host", PushBackend.nccl: "checked_nccl", PushBackend.ipc: "checked_ipc"}
"""What weight_receiver.py calls its side of each way."""


def start_vllm(model: ModelConfig, placement: PlacementConfig, seed: int, push: PushConfig) -> "LLMEngine":
    """vLLM's engine, ready to be stepped by this thread.

    Raises:
        ConfigError: vLLM refuses the model or its placement.
    """
    apart = placement.infer.engine is EngineKind.own_process
    os.environ |= ENVIRONMENT | {"VLLM_ENABLE_V1_MULTIPROCESSING": str(int(apart)), OWNER: str(os.getpid())}
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if placement.device is Device.cpu:
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(COMPILED_ON_CPU))
        return (_start_apart_on_cpu if apart else _start_here_on_cpu)(model, placement, seed, push)
    return _start(model, placement, seed, push)


def _start_here_on_cpu(
    model: ModelConfig, placement: PlacementConfig, seed: int, push: PushConfig
) -> "LLMEngine":
    import torch
    import torch._dynamo

    # in this thread alone: it compiles nothing but the rank of the sampled token, which nobody reads
    torch._dynamo.config.disable = True
    torch.set_num_threads(placement.infer.threads)
    set_num_threads = torch.set_num_threads
    try:
        return _start(model, placement, seed, push)
    finally:
        # vLLM's worker puts a stub there, but a trainer may share this process
        torch.set_num_threads = set_num_threads


def _start_apart_on_cpu(
    model: ModelConfig, placement: PlacementConfig, seed: int, push: PushConfig
) -> "LLMEngine":
    os.environ |= {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": str(placement.infer.threads)}
    return _start(model, placement, seed, push)


def _start(model: ModelConfig, placement: PlacementConfig, seed: int, push: PushConfig) -> "LLMEngine":
    from vllm import EngineArgs, LLMEngine

    infer = placement.infer
    # what goes wrong in another process comes back as a RuntimeError, and its log has the cause
    refused = RuntimeError if infer.engine is EngineKind.own_process else ValueError
    try:
        vllm = LLMEngine.from_engine_args(EngineArgs(**engine_args(model, placement, seed, push)))
    except refused as error:
        raise ConfigError(
            f"vLLM cannot serve model.path ({model.path}) with model.max_length {model.max_length}, "
            f"placement.infer.kv_cache_mib {infer.kv_cache_mib} and "
            f"placement.infer.memory_fraction {infer.memory_fraction}: {error}"
        ) from error
    vllm.set_weight_version("0")
    return vllm


def engine_args(
    model: ModelConfig, placement: PlacementConfig, seed: int, push: PushConfig = HOST_PUSH
) -> dict[str, Any]:
    """What vLLM is told: the same for `LLMEngine` and `LLM`."""
    infer = placement.infer
    args: dict[str, Any] = {
        "model": model.path,
        "revision": model.revision,
        "tokenizer_revision": model.revision,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "dtype": model.engine_dtype.value,
        "max_model_len": model.max_length,
        "max_num_seqs": infer.max_num_seqs,
        "tensor_parallel_size": infer.tensor_parallel,
        "distributed_executor_backend": "uni" if infer.tensor_parallel == 1 else "mp",
        "gpu_memory_utilization": infer.memory_fraction,
        "seed": seed,
        "enable_prefix_caching": infer.prefix_caching,
        "enable_chunked_prefill": infer.chunked_prefill,
        "enable_sleep_mode": infer.sleep_level > 0,
        "quantization": infer.quantization,
        "logprobs_mode": "processed_logprobs",
        "weight_transfer_config": {"backend": RECEIVERS[push.backend]},
        "worker_extension_cls": WEIGHT_RECEIVER,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if placement.device is Device.cpu:
        args["enforce_eager"] = True
        # vLLM's CPU sampler cannot rewind the seed of an answer whose prompt was read in part
        args["enable_chunked_prefill"] = False
        if infer.kv_cache_mib is not None:
            args["kv_cache_memory_bytes"] = infer.kv_cache_mib * 2**20
    return args
