"""What may be asked of the engines and of a push, on which device and in which mode."""

from expert_iteration.choices import Device, EngineKind, PushBackend, Runtime
from expert_iteration.config import RunConfig


def serving_minima(config: RunConfig) -> list[tuple[str, float | None, float]]:
    """(key, value, smallest value that makes sense)."""
    infer = config.placement.infer
    return [
        ("placement.infer.max_num_seqs", infer.max_num_seqs, 1),
        ("placement.infer.sleep_level", infer.sleep_level, 0),
        ("push.bucket_mib", config.push.bucket_mib, 1),
    ]


def serving_problems(config: RunConfig) -> list[str]:
    """What cannot work, each with the way out."""
    return [*_device_problems(config), *_sharing_problems(config), *_push_problems(config)]


def _device_problems(config: RunConfig) -> list[str]:
    infer, found = config.placement.infer, list[str]()
    if infer.sleep_level > 2:
        found.append(f"placement.infer.sleep_level ({infer.sleep_level}) must be 0, 1 or 2.")
    if config.placement.device is not Device.cpu:
        return found
    if infer.chunked_prefill:
        found.append(
            "placement.infer.chunked_prefill=true: vLLM's sampler on CPU cannot rewind the seed of a prompt "
            "that was read in part; use null or false."
        )
    gpu_only = {
        f"placement.infer.quantization={infer.quantization}": infer.quantization is not None,
        f"placement.infer.sleep_level={infer.sleep_level}": infer.sleep_level > 0,
        f"push.backend={config.push.backend.value}": config.push.backend is not PushBackend.host,
    }
    for chosen in (setting for setting, is_set in gpu_only.items() if is_set):
        found.append(f"{chosen} needs GPUs, but placement.device is cpu; leave it out.")
    return found


def _sharing_problems(config: RunConfig) -> list[str]:
    """Memory is given up for others that share the GPU, in the phases of a synchronous run."""
    placement, found = config.placement, list[str]()
    gives_way = {
        f"placement.infer.sleep_level={placement.infer.sleep_level}": placement.infer.sleep_level > 0,
        "placement.reference.offload=true": placement.reference.offload,
    }
    for setting in (setting for setting, is_set in gives_way.items() if is_set):
        if not placement.shared:
            found.append(
                f"{setting} makes room for others on the same GPU, but placement.shared is false; leave it "
                "out, or use placement=one_gpu."
            )
        if config.mode.publish_every is not None:
            found.append(
                f"{setting} needs the phases of mode=sync: in mode=async answers are sampled while the "
                "trainer learns. Leave it out, or use mode=sync."
            )
    return found


def _push_problems(config: RunConfig) -> list[str]:
    placement, backend, found = config.placement, config.push.backend, list[str]()
    if backend is PushBackend.host:
        return found
    if config.runtime is Runtime.local:
        found.append(
            f"push.backend={backend.value} connects processes, but runtime is local; use push.backend=host."
        )
    if backend is PushBackend.nccl and placement.shared:
        found.append(
            "push.backend=nccl connects GPUs, but placement.shared is true: there is one alone; use "
            "push.backend=ipc."
        )
    if backend is PushBackend.ipc and not placement.shared:
        found.append(
            "push.backend=ipc hands over memory of one GPU, but placement.shared is false; use "
            "push.backend=nccl."
        )
    if backend is PushBackend.ipc and placement.infer.engine is EngineKind.own_process:
        found.append(
            "push.backend=ipc hands memory to the process of the engine, which placement.infer.engine="
            "own_process puts one further; use placement.infer.engine=in_process."
        )
    return found
