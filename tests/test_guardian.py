"""What a killed process started is ended, and the guardian ends with it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from expert_iteration import guardian
from expert_iteration.guardian import alive, began, children_of, descendants
from tests.runs import wait_until

OWNER = """
import subprocess, sys
from expert_iteration.guardian import guarded
with guarded(sys.argv[1]):
    kept = subprocess.Popen(["sleep", "600"])
print(kept.pid, flush=True)
kept.wait()
input()
"""


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    (folder / "session").mkdir(parents=True)
    return folder


@pytest.fixture
def owner(scratch: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", OWNER, str(scratch)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def test_a_killed_owner_takes_what_it_started_with_it(owner: subprocess.Popen[str], scratch: Path) -> None:
    assert owner.stdout is not None
    kept = int(owner.stdout.readline())
    assert wait_until(lambda: len(descendants(owner.pid)) == 2, seconds=10)
    family = descendants(owner.pid)
    assert kept in family
    owner.kill()
    owner.wait()
    assert wait_until(lambda: not any(map(began, family)), seconds=10)
    assert wait_until(lambda: not scratch.exists(), seconds=10)


def test_a_child_that_outlives_what_was_started_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = subprocess.Popen(["bash", "-c", "sleep 600 & wait"])
    assert wait_until(lambda: len(descendants(shell.pid)) == 1, seconds=10)
    [child] = descendants(shell.pid)
    seen = Event()

    def looked(number: int) -> list[int]:
        found = children_of(number)
        if child in found:
            seen.set()
        return found

    monkeypatch.setattr(guardian, "children_of", looked)
    with ThreadPoolExecutor(1) as watching:
        this, started = ((number, began(number)) for number in (os.getpid(), shell.pid))
        watching.submit(guardian.watch, this, [started])
        assert seen.wait(60)
        shell.kill()
        shell.wait()
    assert wait_until(lambda: not began(child), seconds=10)


def test_the_guardian_ends_with_what_it_guards(owner: subprocess.Popen[str], scratch: Path) -> None:
    assert owner.stdout is not None
    kept = int(owner.stdout.readline())
    [watching] = set(descendants(owner.pid)) - {kept}
    subprocess.run(["kill", str(kept)], check=True)
    assert wait_until(lambda: not began(watching), seconds=10)
    assert began(owner.pid)
    assert scratch.is_dir()


def test_a_process_that_was_gone_when_it_was_looked_at_is_not_alive() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert alive([(ended.pid, began(ended.pid))]) == []
