"""A run that was stopped or killed and goes on equals the straight run, with no tolerance."""

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.runs import SMALL, Finished, train

pytestmark = pytest.mark.real

ALL_STATE = (
    *(*SMALL, "iterations=3", "algorithm=rejection", "algorithm.accumulate=true", "task.limit=60"),
    *("prompts.strategy=frontier", "rationalisation.enabled=true", "loss.kl_coefficient=0.05"),
)
"""With all that a checkpoint may hold: plans, ledger, hints, samples of earlier iterations."""


def test_a_run_stopped_after_an_iteration_and_killed_in_another_ends_as_the_straight_one(tmp_path):
    local, folder = ("placement=local", *ALL_STATE), tmp_path / "run"
    with ThreadPoolExecutor() as pool:
        going = pool.submit(train, tmp_path / "straight", *local)
        first = train(folder, *local, "iterations=1")
        killed = train(folder, *local, f"resume={folder}", env={"EI_FAULT": "trainer.step:3"})
    straight = going.result()
    assert first.code == straight.code == 0, first.output[-2000:]
    assert killed.code == -signal.SIGKILL, killed.output[-2000:]
    assert {row["iteration"] for row in killed.rollouts} == {1, 2}, "it came to learn from the second one"
    resumed = train(folder, *local, f"resume={folder}")
    assert resumed.code == 0, resumed.output[-2000:]
    assert straight.summary["totals"]["hinted"] > 0
    assert_same(resumed, straight)


def assert_same(one: Finished, other: Finished) -> None:
    """Weights, optimizer, ledger and buffer, metrics, and every answer with its fate."""
    assert said(one) == said(other)
    assert measured(one) == measured(other)
    assert one.summary["totals"] == other.summary["totals"]
    last, straight = (sorted(run.folder.glob("checkpoints/step_*"))[-1] for run in (one, other))
    parts = sorted(str(file.relative_to(last)) for file in last.rglob("*") if file.is_file())
    assert "trainer_0.safetensors" in parts and "model/model.safetensors" in parts
    for part in parts:
        if part not in ("standing.json", "manifest.json"):
            assert (last / part).read_bytes() == (straight / part).read_bytes(), part


def said(run: Finished) -> list[dict[str, Any]]:
    """Every answer of a run, whatever the order in which the groups arrived."""
    keys = ("group_id", "prompt_id", "rollout_index", "response")
    return sorted(run.rollouts, key=lambda row: [row[key] for key in keys])


def measured(run: Finished) -> list[dict[str, Any]]:
    """The metrics of a run, without times and without what each session says of itself."""
    events = [
        {key: value for key, value in event.items() if not timed(key)}
        for event in run.events
        if "run/data_hash" not in event
    ]
    return [event for event in events if event.keys() - {"iteration", "step", "policy/version"}]


def timed(key: str) -> bool:
    return key == "seconds" or key.startswith(("time/", "push/")) or key.endswith("_per_second")
