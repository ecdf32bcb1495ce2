"""A checkpoint is complete or absent."""

import pytest

from expert_iteration.checkpoint import existing, newest, progress_of, saving
from expert_iteration.config import ConfigError
from expert_iteration.scheduler import Progress


def save(run_dir, steps, keep_last=2):
    with saving(run_dir, Progress(iteration=steps // 10, steps=steps), keep_last) as folder:
        (folder / "weights").write_text(str(steps))


def test_what_is_saved_is_read_back(tmp_path):
    progress = Progress(iteration=3, version=7, steps=120, unpublished=5, schedule=0.25)
    with saving(tmp_path, progress, keep_last=1):
        pass
    assert newest(tmp_path).name == "step_00000120"
    assert progress_of(tmp_path) == progress


def test_only_the_newest_stay(tmp_path):
    for steps in (10, 20, 100):
        save(tmp_path, steps)
    assert [folder.name for folder in existing(tmp_path)] == ["step_00000020", "step_00000100"]


def test_a_save_that_fails_leaves_the_ones_before_and_no_checkpoint(tmp_path):
    save(tmp_path, 10)
    with pytest.raises(OSError, match="disk full"), saving(tmp_path, Progress(steps=20), 2) as folder:
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
