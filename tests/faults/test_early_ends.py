"""Runs and calls that end early: interrupted, stopped, or refused by an actor."""

import signal
import subprocess
from pathlib import Path

import pytest

from expert_iteration.values import Samples
from tests.runs import SMALL, train, wait_until
from tests.test_values import begun

pytestmark = [pytest.mark.faults, pytest.mark.real]


def test_an_interrupt_during_start_up_leaves_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def interrupt_early(process: subprocess.Popen[str]) -> None:
        assert wait_until((folder / "logs" / "collector_0.log").is_file, seconds=100)
        process.send_signal(signal.SIGINT)

    run = train(folder, *SMALL, interfere=interrupt_early)
    assert run.code != 0
    assert run.survivors == []
    assert run.shared_memory == set()


def test_an_error_in_an_actor_is_said_in_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    run = train(tmp_path / "run", *SMALL, "placement.infer.kv_cache_mib=1")
    assert run.code == 2
    assert "placement.infer.kv_cache_mib 1" in run.output.splitlines()[-1]
    assert run.survivors == []
    assert run.shared_memory == set()


def test_an_interrupted_call_keeps_what_is_there(tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    process = begun(tmp_path, "task.limit=1500", f"values.path={file}")
    assert wait_until(file.is_file, seconds=200)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "interrupted" in output and "Traceback" not in output
    rewards = Samples.read(file).rewards
    assert 64 <= len(rewards) < 1500 and all(len(earned) == 8 for earned in rewards.values())


def test_a_signal_saves_ends_with_0_and_leaves_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def stop_while_learning(process: subprocess.Popen[str]) -> None:
        metrics = folder / "metrics.jsonl"
        assert wait_until(lambda: metrics.is_file() and "loss/total" in metrics.read_text(), seconds=200)
        process.send_signal(signal.SIGTERM)

    run = train(folder, *SMALL, "iterations=500", interfere=stop_while_learning)
    assert run.code == 0, run.output[-3000:]
    assert run.survivors == []
    assert run.shared_memory == set()
    assert run.summary["exit_reason"] == "stopped"
    assert list(folder.glob("checkpoints/step_*/manifest.json"))
