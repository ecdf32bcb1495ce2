"""Whole runs that are killed, starved and misled: `bash scripts/test.sh --faults`."""

import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runs import SMALL, Finished, train, wait_until
from tests.test_resume import assert_same

pytestmark = [pytest.mark.faults, pytest.mark.real]

LOCAL = ("placement=local", *SMALL, "iterations=3")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    run = train(tmp_path_factory.mktemp("runs") / "straight", *LOCAL)
    assert run.code == 0, run.output[-2000:]
    return run


@pytest.mark.parametrize(
    "fault",
    ["save.parts:2", "save.manifest:2", "save.rename:2", "save.rotate:2", "trainer.push:2", "buffer.add:30"],
)
def test_a_run_killed_anywhere_goes_on_and_ends_as_the_straight_one(
    tmp_path: Path, straight: Finished, fault: str
) -> None:
    killed = train(tmp_path, *LOCAL, env={"EI_FAULT": fault})
    assert killed.code == -signal.SIGKILL, killed.output[-2000:]
    resumed = train(tmp_path, *LOCAL, f"resume={tmp_path}")
    assert resumed.code == 0, resumed.output[-2000:]
    assert_same(resumed, straight)


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
    killed = train(tmp_path, *overrides, env={"EI_FAULT": "driver.publish:2"})
    assert killed.code == -signal.SIGKILL
    assert killed.survivors == [], "ten seconds later"
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


@dataclass(frozen=True)
class Trouble:
    """A run that meets something, and how it ends."""

    overrides: tuple[str, ...]
    code: int
    said: str
    """In its output."""
    kept: bool = False
    """Whether anything was."""


TROUBLES = {
    "loss that is not a number": Trouble(
        ("optimizer.learning_rate=1e30", "optimizer.max_grad_norm=1e30", "optimizer.max_skipped=3"),
        5,
        "steps in a row",
        kept=True,
    ),
    "all answers cut off": Trouble(("sampling.max_tokens=4", "sampling.min_tokens=0"), 0, "before"),
    "no answer is ever right": Trouble(("task=jsonl", "task.max_tokens=24", "wrong_golds"), 0, "before"),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_trouble_is_survived_or_named(tmp_path: Path, name: str) -> None:
    trouble = TROUBLES[name]
    overrides = [word for word in trouble.overrides if word != "wrong_golds"]
    if len(overrides) < len(trouble.overrides):
        questions = tmp_path / "wrong.jsonl"
        questions.write_text(
            "".join(f'{{"question": "What is {i} + 1?", "gold": "-{10**9 + i}"}}\n' for i in range(100))
        )
        overrides += [f"task.path={questions}", "task/prompt=demo"]
    run = train(tmp_path / "run", "placement=local", *SMALL, *overrides)
    assert run.code == trouble.code, run.output[-3000:]
    assert trouble.said in run.output
    if trouble.code == 0:
        assert bool(run.summary["totals"]["kept"]) is trouble.kept
    assert run.survivors == []


def test_a_disk_that_fills_up_ends_the_run_with_6_and_the_checkpoints_before_stay_whole(
    tmp_path: Path, straight: Finished
) -> None:
    first = train(tmp_path, *LOCAL, "iterations=1")
    assert first.code == 0, first.output[-2000:]
    full = train(tmp_path, *LOCAL, f"resume={tmp_path}", largest_file=1_000_000)
    assert full.code == 6, full.output[-2000:]
    assert "could not be written" in full.output.splitlines()[-1]
    resumed = train(tmp_path, *LOCAL, f"resume={tmp_path}")
    assert resumed.code == 0, resumed.output[-2000:]
    assert_same(resumed, straight)
