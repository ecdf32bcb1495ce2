"""The batch script that goes back into the queue, with a stand-in for Slurm and for the run."""

import os
import signal
import subprocess
import time
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "slurm" / "requeue.sbatch"
RUN = """#!/usr/bin/env bash
echo "$@" >>said
folder=outputs/slurm-7
mkdir -p $folder/checkpoints/step_1
end() { echo "{\\"exit_reason\\": \\"$1\\"}" >$folder/summary.json; exit 0; }
trap 'sleep 0.3; touch $folder/checkpoints/step_1/manifest.json; end stopped' TERM
touch started
if [[ "$*" == *resume=* ]]; then end finished; fi
while true; do sleep 0.05; done
"""


def executable(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


def test_a_run_that_is_preempted_goes_back_into_the_queue_and_then_goes_on(tmp_path: Path) -> None:
    executable(tmp_path / ".venv" / "bin" / "python", RUN)
    executable(tmp_path / "bin" / "scontrol", '#!/usr/bin/env bash\necho "$@" >>queue\n')
    places = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7"}
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(["bash", str(SCRIPT), "seed=1"], env=os.environ | places | path)

    first = start()
    deadline = time.monotonic() + 20
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0
    assert (tmp_path / "queue").read_text() == "requeue 7\n"
    assert start().wait(20) == 0
    assert (tmp_path / "queue").read_text() == "requeue 7\n", "a finished run stays finished"
    assert (tmp_path / "said").read_text().splitlines() == [
        "scripts/train.py seed=1 hydra.run.dir=outputs/slurm-7",
        "scripts/train.py seed=1 resume=outputs/slurm-7 hydra.run.dir=outputs/slurm-7",
    ]
