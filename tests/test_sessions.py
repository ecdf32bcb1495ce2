"""Who may use the folder of a run."""

from pathlib import Path

import pytest

from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.sessions import sole_owner

NEW = RunConfig()


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    taken = pytest.raises(ConfigError, match=r"in use by another run; name another hydra\.run\.dir")
    with sole_owner(NEW, tmp_path / "run"), taken, sole_owner(NEW, tmp_path / "run"):
        pytest.fail("both have it")
    with sole_owner(NEW, tmp_path / "run"):
        pass


def test_a_new_run_never_takes_the_folder_of_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ConfigError, match="holds a run already; go on with it by resume="):
        sole_owner(NEW, tmp_path).__enter__()
    with sole_owner(RunConfig(resume=str(tmp_path)), tmp_path):
        pass


def test_a_lock_that_is_a_link_empties_no_file(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(precious)
    with pytest.raises(ConfigError, match="cannot be written"):
        sole_owner(NEW, tmp_path / "run").__enter__()
    assert precious.read_text() == "x"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be written \(Not a directory\); name another"):
        sole_owner(NEW, tmp_path / "file" / "run").__enter__()
