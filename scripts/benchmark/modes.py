"""Wall time of an asynchronous run against a synchronous one, each a whole run in a process of its own.

    python scripts/benchmark/modes.py [--rounds 1] [--output FOLDER] [overrides ...]

Both train the same number of prompts. The ratio is of the time after start-up (the `start` phase is
the same work in both), and of the whole run; accuracies stand beside it, as speed alone says little.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
MODES = ("sync", "async")


def run(mode: str, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """One run; returns its summary."""
    script = str(ROOT / "scripts" / "train.py")
    command = [sys.executable, script, f"mode={mode}", f"hydra.run.dir={folder}", *overrides]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def row(summary: dict[str, Any]) -> dict[str, float]:
    return {
        "seconds": summary["seconds"],
        "seconds after start": summary["seconds"] - summary["seconds_by_phase"]["start"],
        "greedy": summary["end"]["eval/greedy"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path, help="keep the run folders here")
    arguments, overrides = parser.parse_known_args()
    with TemporaryDirectory() as scratch:
        folder = arguments.output or Path(scratch)
        rows: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
        for i in range(arguments.rounds):
            for mode in MODES:
                rows[mode].append(row(run(mode, folder / f"{mode}_{i}", overrides)))
    for key in rows["sync"][0]:
        sync, async_ = (median(one[key] for one in rows[mode]) for mode in MODES)
        ratio = async_ / sync
        sys.stdout.write(f"{key:20s} sync {sync:8.3f}  async {async_:8.3f}  async/sync {ratio:.3f}\n")


if __name__ == "__main__":
    main()
