"""The report of a run, written by a process of its own: whatever becomes of it, the run stands."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import expert_iteration

LIMIT = 300.0
"""Seconds after which a report is given up."""
ROOT = Path(expert_iteration.__file__).parents[1]

logger = logging.getLogger(__name__)


def report_apart(run: Path, limit: float = LIMIT) -> Path | None:
    """The page of `write_run_report`; None, and a warning, if there was none within `limit` seconds."""
    command = [sys.executable, "-m", "expert_iteration.reports.run", str(run)]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
            check=True,
        )
        return Path(done.stdout.strip())
    except subprocess.TimeoutExpired:
        problem = f"not done after {limit:g} s"
    except subprocess.CalledProcessError as error:
        problem = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
    except OSError as error:
        problem = str(error)
    logger.warning("no report (%s); `python scripts/report.py %s` tries again.", problem, run)
    return None
