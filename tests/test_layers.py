"""Data flows one way; so do imports. A module may import only from lower layers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "expert_iteration"
LAYERS = [
    "choices faults timeline orphans room",
    "config types scheduler confinement",
    "algorithms adaptive demo traces rounds measures serving",
    "grading books output laws",
    "data",
    "checks prompts votes tokenizer model_files losses advantages schedules",
    "ledger batching selection weights request vllm_start",
    "transports standstill segment_trees frontier values health selector model guard moments checkpoint",
    "reporting weight_receiver",
    "sweeps",
    "visits samplers resuming engine learner reference evaluation reports",
    "buffer",
    "archive sampling export agreement",
    "second_chances",
    "collector",
    "trainer workers estimation",
    "local actors stages examination",
    "training",
    "sessions planning doctor",
    "launch",
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
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


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("launch", ["torch", "ray", "vllm", "transformers", "wandb", "numpy", "rich", "mpmath"]),
        ("planning.drawing", ["torch", "numpy", "transformers", "mpmath"]),
        ("data.loading", ["torch", "datasets", "transformers", "math_verify"]),
        ("grading", ["torch", "math_verify", "vllm"]),
        ("scheduler", ["torch"]),
        ("training", ["torchrl", "vllm"]),
        ("trainer", ["vllm", "ray"]),
    ],
)
def test_importing_a_module_loads_nothing_heavy(module, absent):
    loaded = f"import sys, expert_iteration.{module}; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    ).stdout.split()
    assert not set(absent) & set(output)
