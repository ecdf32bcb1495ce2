"""What a killed process started is ended, and the guardian ends with it."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from expert_iteration.guardian import began, descendants
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


def test_the_guardian_ends_with_what_it_guards(owner: subprocess.Popen[str]) -> None:
    assert owner.stdout is not None
    kept = int(owner.stdout.readline())
    [guardian] = set(descendants(owner.pid)) - {kept}
    subprocess.run(["kill", str(kept)], check=True)
    assert wait_until(lambda: not began(guardian), seconds=10)
    assert began(owner.pid)
