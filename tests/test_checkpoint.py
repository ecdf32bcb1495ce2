"""A checkpoint is complete or absent, and what was damaged is never used."""

import errno
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from expert_iteration.checkpoint import (
    DAMAGED,
    DRAFT,
    MANIFEST,
    STANDING,
    DamagedCheckpoint,
    Provenance,
    SaveFailed,
    Standing,
    disk_errors,
    draft,
    existing,
    hash_of_folder,
    newest,
    problem_with,
    seal,
)
from expert_iteration.config import CheckpointConfig, ConfigError
from expert_iteration.scheduler import Progress

ORIGIN = Provenance("3", "c0ffee", "decaf", {"torch": "2"})
WEIGHTS = "model/weights"


def standing(steps: int, accuracy: float | None = None) -> Standing:
    progress = Progress(iteration=steps // 10, version=7, steps=steps, unpublished=5, schedule=0.25)
    return Standing(progress, ORIGIN, {"seed": 1}, events=4, accuracy=accuracy, run={"plans": {"2": [1]}})


def save(
    run_dir: Path, steps: int, accuracy: float | None = None, options: CheckpointConfig | None = None
) -> Path:
    folder = draft(run_dir, steps)
    (folder / WEIGHTS).parent.mkdir()
    (folder / WEIGHTS).write_text(str(steps) * 100)
    return seal(folder, standing(steps, accuracy), options or CheckpointConfig())


def steps_of(run_dir: Path) -> list[int]:
    return [int(folder.name.removeprefix("step_")) for folder in existing(run_dir)]


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    folder = save(tmp_path, 120, accuracy=0.5)
    saved = newest(tmp_path)
    assert saved.folder == folder and folder.name == "step_00000120"
    assert saved.standing == standing(120, 0.5)
    assert problem_with(folder) is None


def test_only_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    for steps, accuracy in ((10, 0.2), (20, 0.9), (30, None), (40, 0.9), (50, 0.3), (60, None), (70, 0.5)):
        save(tmp_path, steps, accuracy)
    assert steps_of(tmp_path) == [40, 60, 70], "40 is the newer of the two best"
    save(tmp_path, 80, options=CheckpointConfig(keep_best=False, keep_last=3))
    assert steps_of(tmp_path) == [60, 70, 80]


def test_parts_that_cannot_be_written_leave_the_checkpoints_before(tmp_path: Path) -> None:
    save(tmp_path, 10)
    folder = draft(tmp_path, 20)
    with pytest.raises(SaveFailed, match=r"No space left.*resume=") as failure, disk_errors(folder):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(tmp_path) in str(failure.value)
    assert steps_of(tmp_path) == [10] and newest(tmp_path).standing.progress.steps == 10


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = save(tmp_path, 10)
    with (folder / "huge").open("wb") as file:
        file.truncate(shutil.disk_usage(tmp_path).free * 2)
    with pytest.raises(SaveFailed, match=r"MiB free, and a checkpoint takes about .* MiB"):
        draft(tmp_path, 20)


def test_a_leftover_of_a_killed_save_is_no_checkpoint_and_does_not_stay(tmp_path: Path) -> None:
    leftover = draft(tmp_path, 10)
    (leftover / "old").touch()
    with pytest.raises(ConfigError, match="no checkpoint"):
        newest(tmp_path)
    assert not (save(tmp_path, 10) / "old").exists()
    assert not leftover.exists()


def test_a_draft_that_only_lacked_its_name_is_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 10)
    whole = save(tmp_path, 20)
    whole.rename(whole.with_name(DRAFT + whole.name))
    assert steps_of(tmp_path) == [10]
    assert newest(tmp_path).folder == whole


def test_the_same_step_may_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 10, accuracy=0.1)
    save(tmp_path, 10, accuracy=0.2)
    assert steps_of(tmp_path) == [10]
    assert newest(tmp_path).standing.accuracy == 0.2


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def flipped(file: Path) -> None:
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 1
    file.write_bytes(contents)


@pytest.mark.parametrize("harm", [truncated, zeroed, flipped, Path.unlink])
@pytest.mark.parametrize("name", [WEIGHTS, STANDING, MANIFEST])
def test_any_harm_to_any_file_is_found_and_the_one_before_is_used(
    tmp_path: Path, harm: Callable[[Path], None], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 10)
    last = save(tmp_path, 20)
    harm(last / name)
    assert newest(tmp_path).standing.progress.steps == 10
    assert str(last) in caplog.text and "damaged" in caplog.text
    assert last.with_name(DAMAGED + last.name).is_dir() and not last.exists()


def test_a_damaged_newest_is_refused_where_that_is_asked_for(tmp_path: Path) -> None:
    save(tmp_path, 10)
    truncated(save(tmp_path, 20) / WEIGHTS)
    with pytest.raises(DamagedCheckpoint, match=f"{WEIGHTS} has 199 bytes instead of 200"):
        newest(tmp_path, strict=True)
    assert steps_of(tmp_path) == [10, 20], "nothing is moved"


def test_a_run_without_a_whole_checkpoint_never_starts_afresh_by_itself(tmp_path: Path) -> None:
    for steps in (10, 20):
        flipped(save(tmp_path, steps) / WEIGHTS)
    with pytest.raises(DamagedCheckpoint, match="start a new run"):
        newest(tmp_path)


def test_a_file_that_the_run_did_not_write_is_found(tmp_path: Path) -> None:
    folder = save(tmp_path, 10)
    (folder / "model" / "pytorch_model.bin").write_bytes(b"pickle")
    assert problem_with(folder) == "model/pytorch_model.bin does not belong to it"


def test_a_link_to_another_folder_is_no_checkpoint(tmp_path: Path) -> None:
    elsewhere = save(tmp_path / "other", 10)
    folder = save(tmp_path, 5).parent
    (folder / "step_00000010").symlink_to(elsewhere)
    assert steps_of(tmp_path) == [5] and newest(tmp_path).standing.progress.steps == 5
    for steps in (20, 30):
        save(tmp_path, steps)
    assert problem_with(elsewhere) is None


def test_the_hash_of_a_folder_tells_names_and_contents(tmp_path: Path) -> None:
    for name, text in (("a.json", "1"), ("b.json", "2"), ("other.txt", "3")):
        (tmp_path / name).write_text(text)
    before = hash_of_folder(tmp_path, "*.json")
    (tmp_path / "other.txt").write_text("4")
    assert hash_of_folder(tmp_path, "*.json") == before
    (tmp_path / "a.json").write_text("2")
    (tmp_path / "b.json").write_text("1")
    assert hash_of_folder(tmp_path, "*.json") != before


def test_a_standing_survives_json() -> None:
    assert Standing.of(asdict(standing(10))) == standing(10)
    assert Standing.of(asdict(replace(standing(10), events=9))) != standing(10)
