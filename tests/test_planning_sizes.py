"""What fits on a GPU of which size, and what its arithmetic rests on."""

import json
import struct

import pytest

from expert_iteration.demo import MODEL_FOLDER
from expert_iteration.planning.memory import CUDA_CONTEXT, Process
from expert_iteration.planning.sharing import fullest
from expert_iteration.planning.sizes import RANK, in_full, ways, with_adapters
from tests.plans import composed, shape


def header(file) -> dict[str, dict[str, list[int]]]:
    """Of a safetensors file: the shapes of its tensors, without their values."""
    with file.open("rb") as content:
        (length,) = struct.unpack("<Q", content.read(8))
        return {name: value for name, value in json.loads(content.read(length)).items() if "shape" in value}


def test_parameters_are_those_of_the_file() -> None:
    from math import prod

    tensors = header(MODEL_FOLDER / "model.safetensors")
    assert shape().parameters == sum(prod(tensor["shape"]) for tensor in tensors.values())
    assert shape().tensors == len(tensors)


def test_moments_are_two_numbers_for_each_that_is_trained() -> None:
    import torch

    model = torch.nn.Linear(30, 20)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.ones(30)).sum().backward()
    optimizer.step()
    state = [value for held in optimizer.state.values() for name, value in held.items() if name != "step"]
    elements = sum(parameter.numel() for parameter in model.parameters())
    assert sum(value.numel() for value in state) == 2 * elements


def of(model: str, *overrides: str, adapters: bool = False) -> list[int]:
    config = composed("experiment=cs336_ei", f"model={model}", *overrides)
    return list(
        ways(with_adapters(config) if adapters else in_full(config), shape(config.model.path)).values()
    )


@pytest.mark.parametrize("model", ["qwen2_5_math_1_5b", "qwen2_5_3b"])
def test_what_is_put_away_makes_room(model: str) -> None:
    alone, awake, asleep, scored, offloaded = of(model)
    assert alone < asleep < awake, "of a sleeping engine only its context is left"
    assert asleep < offloaded <= scored, "a reference on the host takes room only while it scores"
    adapted = of(model, adapters=True)
    assert all(less < more for less, more in zip(adapted, of(model), strict=False))
    assert adapted[-1] == adapted[-2], "its reference is the model that is there"


def test_the_rank_of_a_run_counts() -> None:
    ranks = [of("qwen2_5_3b", f"model.lora.rank={rank}", adapters=True) for rank in (0, RANK, 256)]
    assert ranks[0] == ranks[1]
    assert all(low < high for low, high in zip(*ranks[1:], strict=True))


TRAINER = {"weights": 10, "moments": 20, "other": 1, "gradients": 10, "activations": 50}
ENGINE = {"weights": 5, "KV cache": 40}
REFERENCE = {"weights": 10, "other": 1, "activations": 2}
ALL = [
    Process(f"{name} 0", "GPU 0", {part: size * CUDA_CONTEXT for part, size in parts.items()})
    for name, parts in (("trainer", TRAINER), ("collector", ENGINE), ("reference", REFERENCE))
]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), max(31 + 45 + 13, 91 + 45 + 11)),
        (("placement.infer.sleep_level=1",), max(31 + 45 + 13, 91 + 1 + 11)),
        (
            ("placement.infer.sleep_level=2", "placement.reference.offload=true"),
            max(31 + 45 + 13, 91 + 1 + 1),
        ),
        (("mode=async", "placement.infer.sleep_level=0"), 91 + 45 + 13),
    ],
)
def test_a_device_is_fullest_while_answers_are_sampled_or_while_the_trainer_learns(
    overrides: tuple[str, ...], expected: int
) -> None:
    asleep = () if overrides else ("placement.infer.sleep_level=0",)
    config = composed("experiment=cs336_ei", "placement=one_gpu", *asleep, *overrides)
    assert fullest(config, ALL) == expected * CUDA_CONTEXT
