"""scripts/plan.py: a run told before it starts, for people."""

import copy
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from expert_iteration.launch import config_folder, register

SCRIPT = Path(__file__).parents[1] / "scripts" / "plan.py"
EXPERIMENTS = sorted(file.stem for file in (config_folder() / "experiment").glob("*.yaml"))
BIG = ("--devices", "8", "--memory", "80", "--ram", "256")


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def told(script: dict[str, Any], capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    script["main"](arguments)
    return capsys.readouterr().out


def refused(script: dict[str, Any], capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """What it printed, and its one line of standard error."""
    with pytest.raises(SystemExit) as stop:
        script["main"](arguments)
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.out, printed.err


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_has_a_plan(
    experiment: str, script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output = told(script, capsys, f"experiment={experiment}", *BIG)
    assert "steps" in output and "trainer 0" in output


def test_the_demo_is_told_in_plain_text_of_100_columns(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output = told(script, capsys)
    assert "1,024 prompts x 4 answers = 4,096 an iteration, 20,480 in 5 iterations" in output
    assert "6 x at most 300 questions x 2 (greedy, sampled) = 3,600 answers" in output
    assert "854,144" in output
    assert "\x1b" not in output and max(map(len, output.splitlines())) <= 100
    assert not any(line.endswith(" ") for line in output.splitlines())


CLUSTER = ("experiment=cs336_ei", "placement=cluster", "placement.nodes=2", "loss.kl_coefficient=0.1")


def test_the_nodes_of_a_cluster_are_told_with_what_is_on_each_and_a_box_for_each_kind_of_device(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output = told(script, capsys, *CLUSTER, *BIG)
    assert "node 0          8 GPU, 8 CPU: 1 buffer, 4 trainers, 4 collectors" in output
    assert "node 1          8 GPU, 8 CPU: 7 collectors, 1 reference" in output
    for kind in ("node 0 GPU 0 and 3 like it", "node 0 GPU 4 and 10 like it", "node 1 GPU 7 ─"):
        assert output.count(kind) == 1
    assert "11 collectors  GPU" in output and "host of node 0" in output


def test_nodes_that_are_too_small_are_refused_with_the_parts_that_find_no_room(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    _, error = refused(script, capsys, *CLUSTER, "--devices", "7")
    assert "2 nodes (placement.nodes) of 7 GPUs (--devices) have no room for collector 10" in error


def test_the_whole_configuration_is_shown_on_request(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output = told(script, capsys, "--all", "seed=7")
    assert "seed: 7\n" in output and "  kv_cache_mib: 256\n" in output.replace("    ", "  ")


def test_a_pass_rate_stands_in_the_place_of_the_usual_ones(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output = told(script, capsys, "algorithm=raft", "--pass-rate", "0.25")
    assert "50%*" not in output
    row = next(line.split() for line in output.splitlines() if line.strip().startswith("25%"))
    assert row[2:6] == ["1,024", "1,024", "5,120", "25%"], "a quarter of 4,096 and of 20,480"


def test_demonstrations_have_one_row_whatever_the_pass_rate(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output = told(script, capsys, "algorithm=sft")
    assert "none: 1,024 demonstrations an iteration, 5,120 in 5 iterations" in output
    assert output.count("5,120  ") == 1 and "Every demonstration is learned." in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("batch_size=0",), "batch_size (0)"),
        (("nokey=1",), "nokey"),
        (("experiment=none",), "experiment/none"),
        (("mode=async", "mode.publish_every=1"), "mode.max_staleness"),
        (("--like", "nowhere"), "nowhere"),
        (("model.path=README",), "README"),
    ],
)
def test_what_cannot_be_planned_is_refused_before_anything_is_shown(
    arguments: tuple[str, ...],
    words: str,
    script: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README").mkdir()
    output, error = refused(script, capsys, *arguments)
    assert output == "" and words in error


def test_what_cannot_fit_is_shown_and_then_refused(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output, error = refused(script, capsys, "experiment=cs336_ei", "--devices", "1", "--memory", "80")
    assert "GPU 1" in output and "placement needs 2 GPUs" in error
    _, error = refused(script, capsys, "experiment=cs336_ei", "--devices", "2", "--memory", "16")
    assert "GPU 0 would need" in error


def test_a_model_of_unknown_size_is_planned_without_memory(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output = told(script, capsys, "model.path=someone/else")
    assert "hf download someone/else config.json" in " ".join(output.split())
    assert "placement\n" not in output


def test_the_best_split_is_told_with_what_to_type(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output = told(script, capsys, "experiment=cs336_ei", "--suggest-split", "8")
    assert "placement=split placement.train.devices=4 placement.infer.replicas=4" in output
    assert "4 train, 4 infer" in output and "bottleneck" in output
    assert max(map(len, output.splitlines())) <= 100


def test_a_split_that_does_not_fit_is_told_and_then_refused(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ("experiment=cs336_ei", "model.path=Qwen/Qwen2.5-7B", "--suggest-split")
    output, error = refused(script, capsys, *whole, "4", "--gpu", "a100")
    assert "best split" in output and "GPU 0 would need" in error
    _, error = refused(script, capsys, *whole, "1")
    assert "--suggest-split 1 cannot be split" in error


def test_what_fits_is_told_for_every_shipped_model(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    output = told(script, capsys, "--fit", "experiment=cs336_ei")
    for file in (config_folder() / "model").glob("*.yaml"):
        assert f"{file.stem}, full" in output and f"{file.stem}, LoRA" in output
    row = next(line.split() for line in output.splitlines() if line.strip().startswith("the trainer alone"))
    assert row[-5:] == ["yes"] * 5, "the demo fits anywhere"
    assert max(map(len, output.splitlines())) <= 100


def test_gpus_to_be_split_are_those_with_a_data_sheet(script: dict[str, Any]) -> None:
    from expert_iteration.simulation.hardware import ACCELERATORS

    assert set(script["GPUS"]) == set(ACCELERATORS)


@pytest.mark.parametrize("options", [("--suggest-split", "8"), ("--fit",)])
def test_splits_and_sizes_load_no_torch(options: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        f"import runpy, sys; sys.argv = ['plan.py', 'experiment=cs336_ei', *{options!r}]; "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__'); "
        "print(*sorted({'torch', 'ray', 'vllm', 'transformers'} & set(sys.modules)), file=sys.stderr)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert found.stderr.strip() == ""


def test_another_machine_needs_a_number_of_devices(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        script["main"](["--memory", "80"])
    assert stop.value.code == 2 and "--devices" in capsys.readouterr().err


def test_a_plan_loads_no_torch_and_leaves_nothing_behind(tmp_path: Path) -> None:
    code = (
        f"import runpy, sys; sys.argv = ['plan.py', 'mode=async']; "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__'); "
        "print(*sorted({'torch', 'ray', 'vllm', 'transformers'} & set(sys.modules)), file=sys.stderr)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert found.stderr.strip() == ""
    assert list(tmp_path.iterdir()) == []


def test_hydra_does_not_copy_the_store_of_schemas_for_each_group() -> None:
    register()
    store = ConfigStore.instance()
    assert copy.deepcopy(store) is store
