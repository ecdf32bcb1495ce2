"""Whole runs on Ray that are killed and told to stop: `bash scripts/test.sh --faults`."""

import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.runs import SMALL, Finished, train, wait_until
from tests.test_resume import assert_same

pytestmark = [pytest.mark.faults, pytest.mark.real]


@pytest.mark.parametrize("fault", ["trainer.step:12", "trainer.push:2", "buffer.add:30"])
def test_a_trainer_or_a_buffer_that_dies_takes_the_run_back_by_itself(
    tmp_path: Path, straight: Finished, fault: str
) -> None:
    run = train(
        tmp_path / "run",
        *(*SMALL, "iterations=3"),
        env={"EI_FAULT": fault, "EI_FAULT_ONCE": str(tmp_path / "died")},
    )
    assert run.code == 0, run.output[-3000:]
    assert (tmp_path / "died").exists() and "Going back to" in (run.folder / "run.log").read_text()
    assert run.survivors == [] and run.shared_memory == set()
    assert_same(run, straight)


def test_after_the_last_restart_the_run_ends_with_3_and_names_its_checkpoint(tmp_path: Path) -> None:
    run = train(tmp_path, *SMALL, "ray.max_restarts=0", env={"EI_FAULT": "trainer.push:2"})
    assert run.code == 3, run.output[-3000:]
    assert "the last checkpoint is" in run.output and "trainer 0 died" in run.output.splitlines()[-1]
    assert run.survivors == []


def test_a_killed_driver_leaves_no_process_and_the_next_start_goes_on(
    tmp_path: Path, straight: Finished
) -> None:
    overrides = (*SMALL, "iterations=3")
    # Ray's sockets need a short path
    with TemporaryDirectory(prefix="ei-") as temporary:
        killed = train(tmp_path, *overrides, env={"EI_FAULT": "driver.publish:2", "TMPDIR": temporary})
        assert killed.code == -signal.SIGKILL
        assert killed.survivors == [], "ten seconds later"
        assert wait_until(lambda: not list(Path(temporary).glob("ray-*")), seconds=10)
    resumed = train(tmp_path, *overrides, f"resume={tmp_path}")
    assert resumed.code == 0, resumed.output[-2000:]
    assert_same(resumed, straight)


def test_a_second_signal_ends_a_run_at_once(tmp_path: Path) -> None:
    def stop_twice(process):
        metrics = tmp_path / "metrics.jsonl"
        assert wait_until(lambda: metrics.is_file() and "loss/total" in metrics.read_text(), seconds=200)
        for number in (signal.SIGTERM, signal.SIGTERM):
            process.send_signal(number)
            wait_until(lambda: process.poll() is not None, seconds=0.3)

    run = train(tmp_path, *SMALL, "iterations=500", interfere=stop_twice)
    assert run.code in (0, -signal.SIGTERM), run.output[-2000:]
    assert run.survivors == []
