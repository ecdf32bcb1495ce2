"""Plans of the demo and of the experiments, for the tests of planning."""

from pathlib import Path

from hydra import compose, initialize_config_dir

from expert_iteration.checks import from_hydra
from expert_iteration.config import ModelConfig, RunConfig
from expert_iteration.demo import MODEL_FOLDER
from expert_iteration.launch import config_folder, register
from expert_iteration.planning.machine import Machine
from expert_iteration.planning.memory import GIB
from expert_iteration.planning.odds import Odds
from expert_iteration.planning.plan import Plan, plan_of
from expert_iteration.planning.shapes import Shape, shape_of

SMALL = ("iterations=4", "prompts_per_iteration=256", "rollouts_per_prompt=4", "batch_size=16")
PUBLISHED = {
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-Math-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
}
"""Elements that the headers of the safetensors on the hub add up to."""


def composed(*overrides: str) -> RunConfig:
    """For a machine with any number of GPUs."""
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return from_hydra(compose("train", overrides=list(overrides)), gpus=99)


def shape(path: str = str(MODEL_FOLDER)) -> Shape:
    found = shape_of(ModelConfig(path=path)).shape
    assert found is not None
    return found


def plan(*overrides: str, machine: Machine | None = None) -> Plan:
    there = machine or Machine((), 64 * GIB, 100 * GIB)
    return plan_of(composed(*overrides), Path("run"), there, [Odds()])
