"""Processes of an engine end with the one that they work for, here without an engine."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from expert_iteration.orphans import OWNER
from tests.runs import ROOT, wait_until

WORKER = "from expert_iteration.orphans import end_with_owner; end_with_owner(); import time; time.sleep(600)"
CORE = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {WORKER!r}])
"""
HOLDER = """
import os, subprocess, sys
process = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=os.environ | {"%s": str(os.getpid())})
print(process.pid, flush=True)
process.wait()
"""


def is_there(pid: int) -> bool:
    """Whether the process runs; one that has ended but was not asked for is gone."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def child_of(pid: int) -> int | None:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def watches(pid: int) -> bool:
    return len(list(Path(f"/proc/{pid}/task").glob("*"))) > 1


@pytest.mark.parametrize("between", [False, True])
def test_a_process_ends_when_its_owner_is_killed_and_takes_along_who_stands_between(between: bool) -> None:
    command = [sys.executable, "-c", HOLDER % OWNER, CORE if between else WORKER]
    holder = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    first = int(holder.stdout.readline())
    try:
        assert wait_until(lambda: not between or child_of(first) is not None, seconds=60)
        worker = child_of(first) if between else first
        assert worker is not None
        assert wait_until(lambda: watches(worker), seconds=60)
        os.kill(holder.pid, signal.SIGKILL)
        assert wait_until(lambda: not is_there(first) and not is_there(worker), seconds=20)
    finally:
        holder.kill()
        holder.wait()


def test_the_owner_itself_watches_nobody() -> None:
    code = (
        "import os, threading; from expert_iteration.orphans import OWNER, end_with_owner; "
        "end_with_owner(); os.environ[OWNER] = str(os.getpid()); end_with_owner(); "
        "print(threading.active_count())"
    )
    environment = {name: value for name, value in os.environ.items() if name != OWNER}
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "1"
