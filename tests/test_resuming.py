"""What a run may go on with, and what it may not."""

from dataclasses import replace
from pathlib import Path

import pytest

from expert_iteration.checkpoint import Provenance, Standing
from expert_iteration.choices import Schedule
from expert_iteration.config import ConfigError, OptimizerConfig, RunConfig, to_plain
from expert_iteration.reporting.redact import redact
from expert_iteration.resuming import changes_between, refuse_changes
from expert_iteration.scheduler import Progress

HERE = Provenance("3", "c0ffee", "decaf", {"torch": "2", "threads": "1"})
CONFIG = RunConfig(iterations=3, batch_size=8, optimizer=OptimizerConfig(learning_rate=1e-3))
FOLDER = Path("outputs/one")


def saved(config: RunConfig = CONFIG, provenance: Provenance = HERE) -> Standing:
    return Standing(Progress(), provenance, redact(to_plain(config)), 0)


def test_the_same_run_goes_on_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    refuse_changes(FOLDER, saved(), replace(CONFIG, resume=str(FOLDER)), HERE)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        (replace(HERE, data_hash="tea"), "data has the hash c0ffee, but that of this configuration has tea"),
        (replace(HERE, model_hash="tea"), "initial model has the hash decaf"),
    ],
)
def test_other_data_or_another_model_are_refused(changed: Provenance, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        refuse_changes(FOLDER, saved(), CONFIG, changed)


def test_other_settings_are_refused_as_a_diff() -> None:
    now = replace(CONFIG, batch_size=16, optimizer=OptimizerConfig(learning_rate=2e-3))
    with pytest.raises(ConfigError) as refusal:
        refuse_changes(FOLDER, saved(), now, HERE)
    for words in ("batch_size 8 -> 16", "optimizer.learning_rate 0.001 -> 0.002", str(FOLDER), "new run"):
        assert words in str(refusal.value)


def test_harmless_changes_are_named_and_what_they_cost(caplog: pytest.LogCaptureFixture) -> None:
    now = replace(CONFIG, wait_limit=5.0, micro_batch_tokens=64, iterations=9)
    refuse_changes(FOLDER, saved(), now, replace(HERE, versions={"torch": "3"}))
    assert "wait_limit 600.0 -> 5.0" in caplog.text and "iterations 3 -> 9" in caplog.text
    assert "not exact to the bit" in caplog.text and "torch '2' -> '3'" in caplog.text


def test_the_number_of_iterations_is_part_of_a_schedule() -> None:
    falling = replace(CONFIG, optimizer=OptimizerConfig(learning_rate=1e-3, schedule=Schedule.linear))
    with pytest.raises(ConfigError, match="iterations 3 -> 9"):
        refuse_changes(FOLDER, saved(falling), replace(falling, iterations=9), HERE)


@pytest.mark.parametrize(("version", "warned"), [("2", True), ("3", False)])
def test_another_grader_is_warned_of(version: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    refuse_changes(FOLDER, saved(provenance=replace(HERE, grader_version=version)), CONFIG, HERE)
    assert ("kept stay as they were judged" in caplog.text) is warned


def test_a_key_that_only_one_side_knows_is_a_change() -> None:
    assert changes_between({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}, "d": None}) == {"a.c": (None, 2)}
