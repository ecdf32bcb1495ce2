"""Jobs of a sweep that did not come to their end run again: each alone, in its own folder."""

import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from expert_iteration.checkpoint import existing
from expert_iteration.sweeps.jobs import Job, State, job_in

ASIDE = ".failed"
"""Folder of a sweep for what is left of jobs that had saved nothing."""
DONE = (State.FINISHED, State.RUNNING)
"""States of jobs that are not run again."""

Train: TypeAlias = Callable[[Sequence[str], Path], int]
"""(overrides, folder to start in) -> exit code of a run with these overrides."""


def retry(jobs: Sequence[Job], train: Train) -> Iterator[tuple[Job, int]]:
    """Run each of `jobs` that is not done, one after the other, with its own overrides.

    A job goes on from its checkpoint if it has one. If not, what is left of it is put aside first.

    Yields:
        each of them as it stands afterwards, with its exit code.
    """
    for job in jobs:
        if job.state not in DONE:
            folder = job.folder.resolve()
            if not existing(folder) and (folder / "metrics.jsonl").exists():
                put_aside(folder)
            code = train(command_line(job), job.started_in)
            yield job_in(job.folder), code


def command_line(job: Job) -> list[str]:
    """The overrides of a job, and those that send it into its folder once more."""
    folder = job.folder.resolve()
    resume = [f"resume={quoted(folder)}"] if existing(folder) else []
    return [*job.overrides, *resume, f"hydra.run.dir={quoted(folder)}"]


def quoted(path: Path) -> str:
    """A path as a value in Hydra's grammar, where commas and equal signs would mean something."""
    return "'" + str(path).replace("'", "\\'") + "'"


def put_aside(folder: Path) -> None:
    aside = folder.parent / ASIDE
    aside.mkdir(exist_ok=True)
    before = sum(1 for _ in aside.glob(f"{folder.name}-*"))
    folder.rename(aside / f"{folder.name}-{before + 1}")


def trainer(command: Sequence[str]) -> Train:
    """Runs as processes of their own: `command` with the overrides behind it.

    What ends this process ends the run, which is waited for, as it saves before it goes.
    """

    def train(overrides: Sequence[str], folder: Path) -> int:
        process = subprocess.Popen([*command, *overrides], cwd=folder)
        try:
            return process.wait()
        except KeyboardInterrupt:  # the terminal has told the run as well
            process.wait()
            raise
        except SystemExit:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise

    return train
