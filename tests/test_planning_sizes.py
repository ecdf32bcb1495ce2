"""What fits on a GPU of which size, and what its arithmetic rests on."""

import json
import struct

import pytest

from expert_iteration.demo import MODEL_FOLDER
from expert_iteration.planning.memory import GIB
from expert_iteration.planning.shapes import Shape
from expert_iteration.planning.sizes import RANK, Footprint, adapter_elements, footprint
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


@pytest.mark.parametrize("heads", [2, 4])
def test_adapters_are_as_large_as_those_of_peft(heads: int) -> None:
    import transformers
    from peft import LoraConfig, get_peft_model

    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3}
    options = transformers.Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=heads)
    model = get_peft_model(
        transformers.Qwen2ForCausalLM(options), LoraConfig(r=RANK, target_modules="all-linear")
    )
    trained = sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad)
    flags = dict.fromkeys(("tied", "query_bias", "output_bias", "mlp_bias", "query_norm"), False)
    assert adapter_elements(Shape("qwen2", 64, 64, 160, 3, 4, heads, 16, **flags)) == trained


def test_moments_are_two_numbers_for_each_that_is_trained() -> None:
    import torch

    model = torch.nn.Linear(30, 20)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.ones(30)).sum().backward()
    optimizer.step()
    state = [value for held in optimizer.state.values() for name, value in held.items() if name != "step"]
    elements = sum(parameter.numel() for parameter in model.parameters())
    assert sum(value.numel() for value in state) == 2 * elements


def of(model: str, adapters: bool = False) -> Footprint:
    config = composed("experiment=cs336_ei", f"model={model}")
    sizes = shape(config.model.path)
    return footprint(config, sizes, adapter_elements(sizes) if adapters else None)


@pytest.mark.parametrize("model", ["qwen2_5_math_1_5b", "qwen2_5_3b"])
def test_what_is_put_away_makes_room(model: str) -> None:
    alone, awake, asleep, scored, offloaded = of(model).ways.values()
    assert alone <= asleep < awake, "a sleeping engine takes nothing"
    assert asleep <= offloaded <= scored, "a reference on the host takes room only while it scores"
    assert all(
        a < b for a, b in zip(of(model, adapters=True).ways.values(), of(model).ways.values(), strict=True)
    )


def test_adapters_train_next_to_nothing() -> None:
    full, adapters = of("qwen2_5_math_1_5b"), of("qwen2_5_math_1_5b", adapters=True)
    parameters = 1_543_714_304
    assert full.resting == pytest.approx(3 * 4 * parameters + GIB // 2)
    trained = adapter_elements(shape("Qwen/Qwen2.5-Math-1.5B"))
    assert trained == 18_464_768
    assert adapters.resting == pytest.approx(2 * parameters + 3 * 4 * trained + GIB // 2)
