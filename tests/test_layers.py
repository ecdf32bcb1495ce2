"""Data flows one way; so do imports. A module may import only from lower layers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "expert_iteration"
LAYERS = [
    "choices faults timeline orphans guardian room",
    "config types scheduler confinement",
    "algorithms adaptive demo traces rounds measures",
    "grading books output laws placement",
    "data",
    "checks prompts votes tokenizer model_files losses advantages schedules",
    "ledger batching selection weights sharding request vllm_start dispatch",
    "transports standstill segment_trees frontier values health selector model guard moments checkpoint",
    "gradients lora",
    "gathered reporting weight_receiver",
    "sweeps",
    "policy",
    "visits samplers resuming engine learner reference evaluation reports",
    "buffer",
    "archive sampling export agreement",
    "second_chances",
    "collector",
    "trainer workers estimation",
    "local actors stages examination",
    "training",
    "sessions planning doctor",
    "simulation",
    "launch",
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
ABSENT = {
    "launch": "torch ray vllm transformers wandb numpy rich mpmath",
    "planning.drawing": "torch numpy transformers mpmath",
    "simulation.prospects": "torch numpy transformers mpmath",
    "scheduler": "torch",
    "grading": "torch math_verify vllm",
    "data.loading": "torch datasets transformers math_verify",
    "training": "torchrl vllm ray",
    "trainer": "vllm ray",
}
"""What the import of a module, and of those before it, does not load."""
HEAVY = {"ray": {"actors"}, "vllm": {"request", "engine", "vllm_start", "weight_receiver", "transports"}}


def modules() -> list[Path]:
    return sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


def room(file: Path) -> str:
    """The module or sub-package of `file`, as the layers name it."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down(file):
    here = room(file)
    assert here in RANK, f"{here} has no layer; give it one"
    for name in imports(ast.parse(file.read_text(encoding="utf-8"))):
        parts = name.split(".")
        if parts[0] == "expert_iteration" and len(parts) > 1 and parts[1] in RANK and parts[1] != here:
            assert RANK[parts[1]] < RANK[here], (
                f"{here} may not import {parts[1]}: it is not in a lower layer"
            )


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_ray_and_vllm_stay_in_their_rooms(file):
    for name in imports(ast.parse(file.read_text(encoding="utf-8"))):
        allowed = HEAVY.get(name.split(".")[0])
        assert allowed is None or room(file) in allowed, f"{room(file)} imports {name}"


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """What is loaded once each module of ABSENT is imported, one after the other in one process."""
    names = ", ".join(f"expert_iteration.{module}" for module in ABSENT)
    code = f"import sys\nfor name in {names!r}.split(', '):\n    __import__(name)\n    print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    ).stdout
    return {module: set(line.split()) for module, line in zip(ABSENT, output.splitlines(), strict=True)}


@pytest.mark.parametrize("module", ABSENT)
def test_importing_a_module_loads_nothing_heavy(module, loaded):
    assert f"expert_iteration.{module}" in loaded[module]
    assert not loaded[module] & set(ABSENT[module].split())
