"""The set-up script on machines that lack something: it works once, starts anew, or says what to do."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# All that the script finds on its PATH, beside a Python.
TOOLS = (
    *("awk", "bash", "chmod", "cp", "df", "dirname", "flock", "grep", "mkdir", "mktemp"),
    *("rm", "sha256sum", "sleep", "timeout", "touch", "uname"),
)

FAKE_PYTHON = """#!/bin/sh
case "$*" in
  --version) echo "Python $FAKE_VERSION" ;;
  -c*) exit "$FAKE_MISFIT" ;;
  "-m pip config"*) exit 1 ;;
  *) echo "python $*" >>"$CALLS" ;;
esac
case "$*" in
  "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip install"*) cp "$FAKE_UV" .venv/bin/uv ;;
esac
"""
FAKE_UV = """#!/bin/sh
echo "uv $*" >>"$CALLS"
case "$*" in *--no-index*) exit "$FAKE_NO_WHEEL" ;; esac
if [ -n "$FAKE_FAILURE" ]; then echo "$FAKE_FAILURE"; exit 1; fi
if [ -n "$FAKE_HANG" ]; then touch hanging; exec sleep 60; fi
"""


@dataclass
class Checkout:
    """A folder with the set-up script, two short lists and a PATH of its own."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def add_command(self, name: str, text: str) -> Path:
        path = self.root / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def start(self, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", self.root / "scripts" / "bootstrap.sh"],
            env={**self.env, **env},
            cwd=self.root,
            start_new_session=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def set_up(self, **env: str) -> None:
        process = self.start(**env)
        output, errors = process.communicate()
        assert process.returncode == 0, output + errors

    def complaint(self, **env: str) -> str:
        """The one line that a failing set-up leaves on stderr."""
        process = self.start(**env)
        _, errors = process.communicate()
        assert process.returncode == 1
        (line,) = errors.splitlines()
        assert line.startswith("set-up failed: ")
        return line

    def calls(self) -> list[str]:
        """What was asked of the fake Python and the fake uv since the last look."""
        path = Path(self.env["CALLS"])
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found


@pytest.fixture
def bare(tmp_path: Path) -> Checkout:
    """A checkout on a machine without Python."""
    for folder in ("bin", "scripts", "requirements", "tmp"):
        (tmp_path / folder).mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or pytest.fail(f"{tool} is not here"))
    shutil.copy(ROOT / "scripts" / "bootstrap.sh", tmp_path / "scripts")
    (tmp_path / "requirements" / "cpu.txt").write_text("torch==2.0+cpu\nuv==0.1\n")
    (tmp_path / "requirements" / "gpu.txt").write_text("torch==2.0\nuv==0.1\n")
    env = {"PATH": str(tmp_path / "bin"), "TMPDIR": str(tmp_path / "tmp"), "EI_DISK_GB": "0"}
    return Checkout(tmp_path, {**env, "CALLS": str(tmp_path / "calls"), "HOME": str(tmp_path)})


@pytest.fixture
def checkout(bare: Checkout) -> Checkout:
    """A checkout whose Python and uv only note what they are asked for."""
    bare.add_command("python3", FAKE_PYTHON)
    uv = bare.add_command("fake_uv", FAKE_UV)
    fakes = {"FAKE_VERSION": "3.12.1", "FAKE_MISFIT": "0", "FAKE_UV": str(uv), "FAKE_NO_WHEEL": "0"}
    bare.env |= {**fakes, "FAKE_FAILURE": "", "FAKE_HANG": ""}
    return bare


def test_a_second_start_installs_nothing(checkout: Checkout) -> None:
    checkout.set_up()
    assert any("-r requirements/cpu.txt" in call for call in checkout.calls())
    checkout.set_up()
    assert checkout.calls() == []


def test_a_set_up_leaves_no_log_behind_when_it_worked(checkout: Checkout) -> None:
    checkout.set_up()
    assert list((checkout.root / "tmp").iterdir()) == []


def test_a_changed_list_is_installed_anew(checkout: Checkout) -> None:
    checkout.set_up()
    checkout.calls()
    (checkout.root / "requirements" / "cpu.txt").write_text("torch==2.1+cpu\nuv==0.1\n")
    checkout.set_up()
    assert checkout.calls()[0] == "python -m venv --clear .venv"


def test_a_changed_python_is_installed_anew(checkout: Checkout) -> None:
    checkout.set_up()
    checkout.calls()
    checkout.set_up(FAKE_VERSION="3.13.0")
    assert checkout.calls()[0] == "python -m venv --clear .venv"


def test_a_machine_with_an_nvidia_driver_gets_the_gpu_set(checkout: Checkout) -> None:
    checkout.add_command("nvidia-smi", "#!/bin/sh\necho 'GPU 0'\n")
    checkout.set_up()
    calls = checkout.calls()
    assert any("--compile-bytecode -r requirements/gpu.txt" in call for call in calls)
    assert not any("--torch-backend" in call for call in calls)
    checkout.set_up(EI_EXTRA="cpu")
    assert any("-r requirements/cpu.txt" in call for call in checkout.calls())


def test_the_cpu_torch_comes_from_find_links_or_else_from_the_index_of_pytorch(checkout: Checkout) -> None:
    checkout.set_up(PIP_FIND_LINKS="/one /two")
    calls = checkout.calls()
    assert all("--find-links /one --find-links /two" in call for call in calls if call.startswith("uv"))
    assert not any("--torch-backend" in call for call in calls)
    shutil.rmtree(checkout.root / ".venv")
    checkout.set_up(FAKE_NO_WHEEL="1")
    assert any(call.endswith("--torch-backend cpu torch==2.0+cpu") for call in checkout.calls())


def hang_then_die(checkout: Checkout, **env: str) -> None:
    """Start a set-up and kill all its processes in the middle of the install."""
    process = checkout.start(FAKE_HANG="1", **env)
    while not (checkout.root / "hanging").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (checkout.root / "hanging").unlink()
    checkout.calls()


def test_an_interrupted_set_up_is_begun_anew(checkout: Checkout) -> None:
    hang_then_die(checkout)
    checkout.set_up()
    assert checkout.calls()[0] == "python -m venv --clear .venv"


def test_an_interrupted_change_of_the_set_does_not_pass_for_the_old_one(checkout: Checkout) -> None:
    checkout.set_up(EI_EXTRA="cpu")
    hang_then_die(checkout, EI_EXTRA="gpu")
    checkout.set_up(EI_EXTRA="cpu")
    assert checkout.calls()[0] == "python -m venv --clear .venv"


def test_a_machine_without_python_is_told_what_to_install(bare: Checkout) -> None:
    line = bare.complaint()
    assert "python3 (not found)" in line
    assert "python3.11-venv" in line


def test_an_old_python_is_named_with_its_version(checkout: Checkout) -> None:
    line = checkout.complaint(FAKE_VERSION="3.9.2", FAKE_MISFIT="1")
    assert "python3 (Python 3.9.2)" in line
    assert "EI_PYTHON" in line


def test_a_python_that_was_asked_for_is_not_replaced_by_another(checkout: Checkout) -> None:
    line = checkout.complaint(EI_PYTHON="/no/such/python")
    assert "tried /no/such/python (not found);" in line


def test_too_little_disk_is_said_before_anything_is_installed(checkout: Checkout) -> None:
    assert "needs 1000000 GB of disk" in checkout.complaint(EI_DISK_GB="1000000")
    assert checkout.calls() == []


def test_a_disk_that_fills_up_on_the_way_is_named(checkout: Checkout) -> None:
    assert "the disk is full" in checkout.complaint(
        FAKE_FAILURE="write: No space left on device (os error 28)"
    )


def test_an_install_that_takes_too_long_is_given_up(checkout: Checkout) -> None:
    assert "EI_TIME_LIMIT" in checkout.complaint(FAKE_HANG="1", EI_TIME_LIMIT="1")


def test_an_unknown_set_is_refused(checkout: Checkout) -> None:
    assert "'tpu'; set it to cpu or gpu" in checkout.complaint(EI_EXTRA="tpu")


@pytest.fixture
def closed_address() -> Iterator[str]:
    """An address on this machine that refuses connections: its port is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/simple"


def test_an_unreachable_index_is_named_with_the_way_out(bare: Checkout, closed_address: str) -> None:
    settings = {"PIP_INDEX_URL": closed_address, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    line = bare.complaint(EI_PYTHON=sys.executable, **settings)
    assert "installing uv: the package index did not answer" in line
    assert "PIP_INDEX_URL" in line
    log = re.search(r"\(log: (.+)\)", line)
    assert log is not None
    assert Path(log[1]).is_file()
    assert not (bare.root / ".venv" / "stamp").exists()
