"""What a killed process started is ended, and the guardian ends with it."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from expert_iteration.guardian import LOOK_EVERY, alive, began, descendants
from tests.runs import wait_until

OWNER = """
import subprocess
from expert_iteration.guardian import guarded
with guarded():
    kept = subprocess.Popen(["sleep", "600"])
print(kept.pid, flush=True)
kept.wait()
input()
"""


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def test_a_killed_owner_takes_what_it_started_with_it(owner: subprocess.Popen[str]) -> None:
    assert owner.stdout is not None
    kept = int(owner.stdout.readline())
    assert wait_until(lambda: len(descendants(owner.pid)) == 2, seconds=10)
    family = descendants(owner.pid)
    assert kept in family
    owner.kill()
    owner.wait()
    assert wait_until(lambda: not any(map(began, family)), seconds=10)


def test_a_child_that_outlives_what_was_started_is_ended() -> None:
    code = OWNER.replace('["sleep", "600"]', '["bash", "-c", "sleep 600 & wait"]')
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    shell = int(owner.stdout.readline())
    assert wait_until(lambda: len(descendants(shell)) == 1, seconds=10)
    [child] = descendants(shell)
    time.sleep(2 * LOOK_EVERY)
    subprocess.run(["kill", "-9", str(shell)], check=True)
    assert wait_until(lambda: not began(child), seconds=10)
    owner.kill()
    owner.communicate()


def test_the_guardian_ends_with_what_it_guards(owner: subprocess.Popen[str]) -> None:
    assert owner.stdout is not None
    kept = int(owner.stdout.readline())
    [guardian] = set(descendants(owner.pid)) - {kept}
    subprocess.run(["kill", str(kept)], check=True)
    assert wait_until(lambda: not began(guardian), seconds=10)
    assert began(owner.pid)


def test_a_process_that_was_gone_when_it_was_looked_at_is_not_alive() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert alive([(ended.pid, began(ended.pid))]) == []
