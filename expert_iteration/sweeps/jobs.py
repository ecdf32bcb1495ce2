"""The jobs of a sweep, read from its folder: what each was told to do, and how it stands."""

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob

from expert_iteration.reporting.text import one_line

PLAN = "multirun.yaml"
"""File of a sweep that says what it was asked for; the basic sweeper writes it."""
NUMBERED = "${hydra.job.num}"
"""hydra.sweep.subdir of a sweep whose jobs lie in folders 0, 1, 2, ..."""
ERROR = "error.txt"
"""File of a run that failed: why, in one line."""
LONGEST = 500
"""Characters of such a line."""
STOPPED = "stopped"
"""Exit reason of a run that a signal ended."""


class NoSweep(ValueError):
    """A folder that holds no job of a sweep. The message says what it lacks."""


class State(Enum):
    """How a job stands."""

    FINISHED = "finished"
    """It came to its end, or to one that its own configuration asks for."""
    STOPPED = "stopped"
    RUNNING = "running"
    FAILED = "failed"
    MISSING = "not begun"


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    folder: Path
    overrides: tuple[str, ...]
    """As they stand on Hydra's command line, without `resume`."""
    started_in: Path
    """The folder that relative paths in them start from."""
    state: State
    note: str = ""
    """What its state does not say: another reason to end, or the last line of an error."""


def jobs_of(sweep: Path) -> list[Job]:
    """The jobs in a folder, also those that it was to begin and has not; by number or name.

    Raises:
        NoSweep: there is none.
    """
    begun = {folder: job_in(folder) for folder in _folders(sweep)}
    jobs = {folder: job for folder, job in _plan(sweep).items() if folder not in begun} | begun
    if not jobs:
        raise NoSweep(f"{sweep} holds no job of a sweep; name a folder such as multirun/<date>/<time>.")
    return [jobs[folder] for folder in sorted(jobs, key=_natural)]


def job_in(folder: Path) -> Job:
    """The job whose folder this is."""
    hydra = folder / ".hydra"
    written = read_yaml(hydra / "overrides.yaml")
    overrides = tuple(override for override in written if not override.startswith("resume="))
    return Job(folder, overrides, _started_in(hydra / "hydra.yaml"), *_standing(folder))


def has_begun(sweep: Path) -> bool:
    """Whether any job has a folder."""
    return next(_folders(sweep), None) is not None


def note_error(folder: Path, error: Exception) -> None:
    """Write down in the folder of a run why it failed; not where another run is, or one that has ended."""
    if _standing(folder)[0] in (State.FAILED, State.STOPPED):
        line = f"{type(error).__name__}: {one_line(str(error), LONGEST)}"
        (folder / ERROR).write_text(f"{line}\n", encoding="utf-8")


def forget_error(folder: Path) -> None:
    """A run that begins, or goes on, has not failed yet."""
    (folder / ERROR).unlink(missing_ok=True)


def read_yaml(file: Path) -> Any:
    """What Hydra wrote, references unresolved; {} where there is no file."""
    if not file.is_file():
        return {}
    return yaml.safe_load(file.read_bytes())


def objective(folder: Path) -> float | None:
    """What a search maximises: the greedy accuracy at the end of a run; None without one."""
    end = summary_of(folder).get("end", {})
    return end.get("eval/greedy")


def _folders(sweep: Path) -> Iterator[Path]:
    """Folders that Hydra made for jobs, at any depth; what begins with a dot is none."""
    for here, names, _ in os.walk(sweep):
        if ".hydra" in names and Path(here) != sweep:
            yield Path(here)
            names.clear()
        names[:] = [name for name in names if not name.startswith(".")]


def _natural(folder: Path) -> tuple[tuple[bool, int, str], ...]:
    """Numbers by size, names by letter: 2 stands before 10."""
    return tuple((not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in folder.parts)


def _plan(sweep: Path) -> dict[Path, Job]:
    """The jobs that a sweep was asked for, by folder; empty where they cannot be told beforehand."""
    if not (sweep / PLAN).is_file():
        return {}
    asked = read_yaml(sweep / PLAN)
    subdir, sweeper = asked["hydra"]["sweep"]["subdir"], asked["hydra"]["sweeper"]
    if subdir != NUMBERED or not sweeper["_target_"].endswith(".BasicSweeper"):
        return {}
    params = [f"{key}={value}" for key, value in (sweeper["params"] or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*params, *asked["hydra"]["overrides"]["task"]])
    if any(isinstance(override.value(), Glob) for override in overrides):
        return {}
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    start = _started_in(sweep / PLAN)
    folders = [sweep / str(number) for number in range(len(jobs))]
    return {
        folder: Job(folder, tuple(job), start, State.MISSING)
        for folder, job in zip(folders, jobs, strict=True)
    }


def _started_in(hydra: Path) -> Path:
    """The working folder that Hydra wrote down; this one where that is gone."""
    written = read_yaml(hydra).get("hydra", {}).get("runtime", {}).get("cwd", "")
    return Path(written) if Path(written).is_dir() else Path.cwd()


def _standing(folder: Path) -> tuple[State, str]:
    if _is_held(folder / ".lock"):
        return State.RUNNING, ""
    reason = summary_of(folder).get("exit_reason")
    if reason not in (None, STOPPED):
        return State.FINISHED, "" if reason == State.FINISHED.value else str(reason)
    if reason is None or (folder / ERROR).is_file():  # it went on after it was stopped, and failed
        return State.FAILED, _last_words(folder)
    return State.STOPPED, ""


def summary_of(folder: Path) -> dict[str, Any]:
    file = folder / "summary.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _is_held(lock: Path) -> bool:
    """Whether a run holds the lock of its folder."""
    if not lock.is_file():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _last_words(folder: Path) -> str:
    if (folder / ERROR).is_file():
        return (folder / ERROR).read_text(encoding="utf-8").strip()
    log = folder / "run.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    errors = [line for line in lines if " ERROR " in line]
    return errors[-1] if errors else "it was killed: no error was written"
