"""Whole runs with adapters, and of ranks that share the weights: engines agree, others read them."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from expert_iteration.demo import MODEL_FOLDER
from tests.runs import ROOT, SMALL, Finished, train

pytestmark = [pytest.mark.real, pytest.mark.long]
EXACT = (*SMALL, "model.engine_dtype=float32", "loss.kl_coefficient=0.05", "health.verify_push_every=1")


def assert_agreement(run: Finished) -> None:
    """Every push is verified."""
    assert run.code == 0, run.output[-3000:]
    assert max(run.values("push/mismatch_mean")) < 1e-4
    assert max(run.values("loss/kl")) > 0


def test_a_run_with_adapters_goes_on_from_them_and_is_exported_whole(tmp_path: Path) -> None:
    folder, lora = tmp_path / "run", (*EXACT, "placement=local", "model.lora.rank=8")
    assert_agreement(train(folder, *lora, "iterations=1"))
    run = train(folder, *lora, f"resume={folder}")
    assert_agreement(run)
    assert len(run.values("push/mismatch_mean")) == 2
    [*_, last] = sorted((folder / "checkpoints").glob("step_*"))
    assert (last / "model" / "adapter_config.json").is_file()
    assert not (last / "model" / "model.safetensors").exists()
    export = [sys.executable, str(ROOT / "scripts" / "export.py"), str(folder), str(tmp_path / "whole")]
    subprocess.run(export, check=True, cwd=ROOT)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").state_dict()
    base = load_file(MODEL_FOLDER / "model.safetensors")
    moved = {name for name, value in base.items() if not merged[name].equal(value.float())}
    assert moved == {name for name in base if name.endswith("proj.weight")}


def test_a_run_of_two_ranks_that_share_the_weights_goes_on_with_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ranks = ("placement.train.devices=2", "placement.train.sharding=full")
    assert_agreement(train(folder, *EXACT, *ranks, "iterations=1"))
    assert_agreement(train(folder, *EXACT, "placement=local", f"resume={folder}"))
