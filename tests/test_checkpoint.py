"""A checkpoint is complete or absent."""

import pytest

from expert_iteration.checkpoint import (
    PROVENANCE,
    Provenance,
    existing,
    newest,
    progress_of,
    provenance_of,
    refuse_other_data,
    saving,
)
from expert_iteration.config import ConfigError
from expert_iteration.scheduler import Progress
from tests.runs import SMALL, train

ORIGIN = Provenance(grader_version="3", data_hash="c0ffee")


def save(run_dir, steps, keep_last=2):
    progress = Progress(iteration=steps // 10, steps=steps)
    with saving(run_dir, progress, ORIGIN, keep_last) as folder:
        (folder / "weights").write_text(str(steps))


def test_what_is_saved_is_read_back(tmp_path):
    progress = Progress(iteration=3, version=7, steps=120, unpublished=5, schedule=0.25)
    with saving(tmp_path, progress, ORIGIN, keep_last=1):
        pass
    assert newest(tmp_path).name == "step_00000120"
    assert progress_of(tmp_path) == progress
    assert provenance_of(tmp_path) == ORIGIN


def test_only_the_newest_stay(tmp_path):
    for steps in (10, 20, 100):
        save(tmp_path, steps)
    assert [folder.name for folder in existing(tmp_path)] == ["step_00000020", "step_00000100"]


def test_a_save_that_fails_leaves_the_ones_before_and_no_checkpoint(tmp_path):
    save(tmp_path, 10)
    failing = saving(tmp_path, Progress(steps=20), ORIGIN, 2)
    with pytest.raises(OSError, match="disk full"), failing as folder:
        (folder / "weights").write_text("half")
        raise OSError("disk full")
    assert newest(tmp_path).name == "step_00000010"


def test_a_leftover_of_a_killed_save_is_no_checkpoint_and_does_not_stay(tmp_path):
    leftover = tmp_path / "checkpoints" / "tmp-step_00000010"
    leftover.mkdir(parents=True)
    (leftover / "old").touch()
    with pytest.raises(ConfigError, match="no checkpoint"):
        newest(tmp_path)
    save(tmp_path, 10)
    assert not leftover.exists()
    assert not (newest(tmp_path) / "old").exists()


def test_the_same_step_may_be_saved_again(tmp_path):
    save(tmp_path, 10)
    save(tmp_path, 10)
    assert len(existing(tmp_path)) == 1


def test_a_run_goes_on_with_its_own_data_only(tmp_path):
    save(tmp_path, 10)
    refuse_other_data(tmp_path, "c0ffee")
    with pytest.raises(ConfigError) as refusal:
        refuse_other_data(tmp_path, "decaf")
    for word in ("c0ffee", "decaf", str(tmp_path), "start a new run"):
        assert word in str(refusal.value)


def test_the_newest_checkpoint_says_what_the_run_rests_on(tmp_path):
    save(tmp_path, 10)
    with saving(tmp_path, Progress(steps=20), Provenance("4", "c0ffee"), 2):
        pass
    assert provenance_of(tmp_path).grader_version == "4"


def test_a_checkpoint_that_does_not_say_is_refused(tmp_path):
    save(tmp_path, 10)
    (newest(tmp_path) / PROVENANCE).unlink()
    with pytest.raises(ConfigError, match=PROVENANCE):
        refuse_other_data(tmp_path, "c0ffee")


def test_a_resume_with_other_data_ends_with_2_before_a_model_is_loaded(tmp_path):
    save(tmp_path, 10)
    run = train(tmp_path, "placement=local", *SMALL, f"resume={tmp_path}")
    assert run.code == 2, run.output[-2000:]
    assert "c0ffee" in run.output.splitlines()[-1]
    assert not (tmp_path / "metrics.jsonl").exists()
