"""What a run or a sweep was, on one page: ``python scripts/report.py FOLDER``.

FOLDER is a run, as in outputs/<run>, or a sweep, as in multirun/<sweep>. Writes FOLDER/report.html, which
loads nothing from anywhere, and its pictures as PNG into FOLDER/report/.
"""

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from expert_iteration.reports.runs import NoRun

EXIT_CONFIGURATION = 2


def main(arguments: Sequence[str] | None = None) -> None:
    folder = parse(arguments).folder
    try:
        page = write(folder)
    except (NoRun, OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(EXIT_CONFIGURATION) from None
    sys.stdout.write(f"{page}\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=details)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a run or of a sweep")
    return parser.parse_args(arguments)


def write(folder: Path) -> Path:
    """The report that fits what the folder holds.

    Raises:
        NoRun: it holds neither a run nor a sweep.
    """
    if (folder / "metrics.jsonl").is_file():
        from expert_iteration.reports.run import write_run_report

        return write_run_report(folder)
    from expert_iteration.reports.sweep import write_sweep_report
    from expert_iteration.sweeps.jobs import NoSweep

    try:
        return write_sweep_report(folder)[0]
    except NoSweep:
        problem = "holds neither a run (metrics.jsonl) nor a sweep; name outputs/<run> or multirun/<sweep>."
        raise NoRun(f"{folder} {problem}") from None


if __name__ == "__main__":
    gc.disable()  # a tenth of the time, for cycles that the end of the process frees
    main()
