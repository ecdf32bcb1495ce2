"""Options of engines and pushes: what they tell vLLM, and where they are refused."""

import os

import pytest

from expert_iteration.choices import Device, EngineKind, PushBackend, PushPause
from expert_iteration.config import ConfigError, InferPlacement, ModelConfig, PlacementConfig, PushConfig
from expert_iteration.vllm_start import engine_args, start_vllm
from tests.test_config import composed

GPUS = 8


def told(device: Device = Device.cuda, push: PushConfig | None = None, **infer) -> dict:
    placement = PlacementConfig(device=device, infer=InferPlacement(**infer))
    return engine_args(ModelConfig(path="x", max_length=16), placement, 0, push or PushConfig())


def test_options_of_the_engine_reach_vllm():
    changed = told(prefix_caching=False, chunked_prefill=True, quantization="fp8", sleep_level=1)
    assert changed["enable_prefix_caching"] is False
    assert changed["enable_chunked_prefill"] is True
    assert changed["quantization"] == "fp8"
    assert changed["enable_sleep_mode"] is True
    plain = told()
    assert plain["enable_prefix_caching"] is True
    assert (plain["enable_chunked_prefill"], plain["quantization"]) == (None, None)
    assert plain["enable_sleep_mode"] is False


def test_on_cpu_prompts_are_never_read_in_parts():
    assert told(Device.cpu)["enable_chunked_prefill"] is False


@pytest.mark.parametrize("backend", PushBackend)
def test_each_way_of_a_push_has_a_receiver_of_its_own(backend):
    others = {
        told(push=PushConfig(backend=other))["weight_transfer_config"]["backend"] for other in PushBackend
    }
    assert len(others) == len(PushBackend)
    assert told(push=PushConfig(backend=backend))["weight_transfer_config"]["backend"] in others


@pytest.mark.parametrize("tensor_parallel", [1, 2])
@pytest.mark.parametrize("kind", EngineKind)
def test_a_tensor_parallel_engine_has_processes_of_its_own_in_either_kind(kind, tensor_parallel):
    executor = told(engine=kind, tensor_parallel=tensor_parallel)["distributed_executor_backend"]
    assert executor == ("uni" if tensor_parallel == 1 else "mp")


def test_the_default_is_what_interrupts_least():
    config = composed()
    assert (config.push.backend, config.push.pause) == (PushBackend.host, PushPause.keep)
    assert config.placement.infer.engine is EngineKind.in_process
    assert config.placement.infer.sleep_level == 0


def test_on_one_gpu_the_engine_sleeps():
    gpu = composed("placement=one_gpu", gpus=GPUS)
    assert gpu.placement.infer.sleep_level == 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["placement.infer.quantization=fp8"], ["quantization=fp8", "placement.device is cpu"]),
        (["placement.infer.chunked_prefill=true"], ["chunked_prefill=true", "null or false"]),
        (["placement.infer.sleep_level=1"], ["sleep_level=1", "placement.device is cpu"]),
        (["placement.infer.sleep_level=3"], ["sleep_level (3)", "0, 1 or 2"]),
        (["placement.infer.sleep_level=-1"], ["sleep_level (-1)", "at least 0"]),
        (["placement.infer.max_num_seqs=0"], ["max_num_seqs (0)", "at least 1"]),
        (["push.bucket_mib=0"], ["push.bucket_mib (0)", "at least 1"]),
        (["push.backend=nccl"], ["push.backend=nccl", "placement.device is cpu"]),
        (["push.backend=ipc"], ["push.backend=ipc", "placement.device is cpu"]),
        (["placement=one_gpu", "push.backend=nccl"], ["push.backend=nccl", "push.backend=ipc"]),
        (["placement=split", "push.backend=ipc"], ["push.backend=ipc", "use push.backend=nccl"]),
        (["placement=split", "placement.infer.sleep_level=1"], ["sleep_level=1", "placement=one_gpu"]),
        (["placement=split", "placement.reference.offload=true"], ["offload=true", "placement=one_gpu"]),
        (["placement=one_gpu", "mode=async"], ["sleep_level=2", "mode=sync"]),
        (
            ["placement=one_gpu", "runtime=local", "push.backend=ipc"],
            ["runtime is local", "push.backend=host"],
        ),
        (
            ["placement=one_gpu", "push.backend=ipc", "placement.infer.engine=own_process"],
            ["push.backend=ipc", "in_process"],
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_loads(overrides, words):
    with pytest.raises(ConfigError) as refusal:
        composed(*overrides, gpus=GPUS)
    message = str(refusal.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "overrides",
    [
        ["placement=split", "push.backend=nccl", "push.groups=per_replica", "placement.infer.replicas=4"],
        ["placement=split", "push.backend=nccl", "mode=async", "push.pause=abort"],
        ["placement=split", "placement.infer.quantization=fp8", "placement.infer.engine=own_process"],
        ["placement=one_gpu", "push.backend=ipc", "placement.reference.offload=true"],
        ["placement=one_gpu", "placement.infer.sleep_level=0", "mode=async"],
        ["placement.infer.engine=own_process", "push.pause=wait", "placement.infer.prefix_caching=false"],
    ],
)
def test_what_can_work_is_accepted(overrides):
    composed(*overrides, gpus=GPUS)


@pytest.mark.parametrize(("given", "kept"), [({}, "32"), ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7"}, "7")])
def test_an_engine_on_cpu_keeps_few_compiled_products_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], kept: str
) -> None:
    monkeypatch.setattr("os.environ", dict(given))
    monkeypatch.setattr("expert_iteration.vllm_start._start_here_on_cpu", lambda *_: os.environ)
    environment = start_vllm(ModelConfig(path="x"), PlacementConfig(device=Device.cpu), 0, PushConfig())
    assert environment["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == kept
