"""Runs in one process that are killed, starved and misled; two of them may go on at a time."""

import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import LOCAL
from tests.runs import SMALL, Finished, train
from tests.test_resume import assert_same

pytestmark = [pytest.mark.faults, pytest.mark.real]


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
