"""The batch scripts, with stand-ins for Slurm, for Ray and for the run."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runs import ROOT, wait_until

SCRIPTS = ROOT / "scripts"
RUN = """#!/usr/bin/env bash
echo "$@" >>said
echo "$RAY_AUTH_TOKEN_PATH" >token_path
folder=outputs/slurm-7
mkdir -p $folder/checkpoints/step_1
end() { echo "{\\"exit_reason\\": \\"$1\\"}" >$folder/summary.json; exit 0; }
trap 'sleep 0.3; touch $folder/checkpoints/step_1/manifest.json; end stopped' TERM
touch started
if [[ "$*" == *resume=* ]]; then end finished; fi
while true; do sleep 0.05; done
"""
SRUN = """#!/usr/bin/env bash
pids=()
trap 'kill -TERM "${pids[@]}"' TERM
for number in 0 1 2; do
    SLURM_NODEID=$number "$@" &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait $pid || true; wait $pid || true; done
"""
RAY = """#!/usr/bin/env bash
if [[ $1 == health-check ]]; then [[ -e head_is_up ]]; exit; fi
if [[ $2 == --head ]]; then touch head_is_up; fi
echo "$* $(stat -c %a "$RAY_AUTH_TOKEN_PATH") $(wc -c <"$RAY_AUTH_TOKEN_PATH")" >>nodes
trap 'echo ended >>nodes; exit 143' TERM
while true; do sleep 0.05; done
"""


def executable(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


@pytest.fixture
def submit(tmp_path: Path) -> Callable[[str], "subprocess.Popen[bytes]"]:
    """Starts a batch script of a job on three nodes, in a folder where the rest is stand-ins."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts")
    executable(tmp_path / ".venv" / "bin" / "python", RUN)
    executable(tmp_path / ".venv" / "bin" / "ray", RAY)
    executable(tmp_path / "bin" / "scontrol", '#!/usr/bin/env bash\necho "$@" >>queue\n')
    executable(tmp_path / "bin" / "srun", SRUN)
    job = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "3"}
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "EI_HEAD": "10.0.0.1"}

    def start(name: str) -> "subprocess.Popen[bytes]":
        command = ["bash", str(SCRIPTS / "slurm" / name), "seed=1"]
        return subprocess.Popen(command, cwd=tmp_path, env=os.environ | job | path)

    return start


def preempted(job: "subprocess.Popen[bytes]", started: Path) -> int:
    """The exit code of a job that gets SIGTERM once its run has started."""
    assert wait_until(started.exists, seconds=20)
    job.send_signal(signal.SIGTERM)
    return job.wait(20)


def test_a_run_that_is_preempted_goes_back_into_the_queue_and_then_goes_on(
    tmp_path: Path, submit: Callable[[str], "subprocess.Popen[bytes]"]
) -> None:
    assert preempted(submit("requeue.sbatch"), tmp_path / "started") == 0
    assert (tmp_path / "queue").read_text() == "requeue 7\n"
    assert submit("requeue.sbatch").wait(20) == 0
    assert (tmp_path / "queue").read_text() == "requeue 7\n", "a finished run stays finished"
    assert (tmp_path / "said").read_text().splitlines() == [
        "scripts/train.py seed=1 hydra.run.dir=outputs/slurm-7",
        "scripts/train.py seed=1 resume=outputs/slurm-7 hydra.run.dir=outputs/slurm-7",
    ]


def test_a_run_over_several_nodes_starts_a_guarded_cluster_and_ends_it(
    tmp_path: Path, submit: Callable[[str], "subprocess.Popen[bytes]"]
) -> None:
    assert preempted(submit("cluster.sbatch"), tmp_path / "started") == 0
    assert (tmp_path / "queue").read_text() == "requeue 7\n"
    [said] = (tmp_path / "said").read_text().splitlines()
    overrides = "placement=cluster placement.nodes=3 ray.address=10.0.0.1:20007 seed=1"
    assert said == f"scripts/train.py {overrides} hydra.run.dir=outputs/slurm-7"
    nodes = (tmp_path / "nodes").read_text().splitlines()
    started = sorted(line for line in nodes if line != "ended")
    assert [line.split()[:3] for line in started] == [
        ["start", "--address=10.0.0.1:20007", started[0].split()[2]],
        ["start", "--address=10.0.0.1:20007", started[1].split()[2]],
        ["start", "--head", "--node-ip-address=10.0.0.1"],
    ]
    assert all(line.endswith(" --disable-usage-stats --block 600 64") for line in started)
    assert nodes.count("ended") == 3
    assert not Path((tmp_path / "token_path").read_text().strip()).exists(), "the token goes with the cluster"


def start_node(*arguments: str, token: Path) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"RAY_AUTH_TOKEN_PATH": str(token)}
    command = ["bash", str(SCRIPTS / "ray" / "start_node.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_no_node_starts_without_a_token_that_nobody_else_may_read(tmp_path: Path) -> None:
    token = tmp_path / "token"
    refused = start_node("head", "127.0.0.1:1", token=token)
    assert (refused.returncode, "names no file with a token" in refused.stderr) == (2, True)
    token.write_text("")
    assert "names no file with a token" in start_node("head", "127.0.0.1:1", token=token).stderr
    token.write_text("secret")
    token.chmod(0o640)
    refused = start_node("join", "127.0.0.1:1", token=token)
    assert (refused.returncode, "others may read" in refused.stderr) == (2, True)
    assert "say head or join" in start_node("none", token=token).stderr
    assert "say ADDRESS:PORT" in start_node("head", "localhost", token=token).stderr


def test_a_job_is_sent_with_the_overrides_that_a_shell_leaves_alone(tmp_path: Path) -> None:
    shutil.copytree(SCRIPTS, tmp_path / "scripts")
    executable(tmp_path / ".venv" / "bin" / "ray", '#!/usr/bin/env bash\nprintf "%s\\n" "$@" >said\n')
    script = tmp_path / "scripts" / "ray" / "submit.sh"

    def send(*overrides: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        plain = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        command = ["bash", str(script), *overrides]
        return subprocess.run(command, env=plain | environment, capture_output=True, text=True)

    assert "there is no token" in send().stderr
    assert send("seed=1", "a=[1,2]", RAY_AUTH_TOKEN="secret").returncode == 0
    said = (tmp_path / "said").read_text().splitlines()
    assert said[said.index("--") + 1 :] == [
        *("cd", "~/expert_iteration", "&&", "exec", ".venv/bin/python", "scripts/train.py"),
        *("placement=cluster", "ray.address=auto", "seed=1", "a=[1,2]"),
    ]
    assert "a shell would read" in send("a=$(id)", RAY_AUTH_TOKEN="secret").stderr


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("**/*sh")), ids=lambda file: file.name)
def test_every_script_is_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
