"""How the runs of a sweep stand, and another try for those that did not finish.

    python scripts/sweep.py --list multirun/2026-01-31/12-00-00
    python scripts/sweep.py --retry-failed multirun/2026-01-31/12-00-00

Runs that are finished, or running now, are left alone. The others run one after the other, each in its own
folder with its own overrides: from its checkpoint if it has one, else from the start. The report of the sweep
is written anew.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table
from rich.text import Text

from expert_iteration.reporting.text import one_line
from expert_iteration.sessions import termination_as_exit
from expert_iteration.sweeps.jobs import Job, NoSweep, State, jobs_of
from expert_iteration.sweeps.retries import DONE, retry, trainer

EXIT_LEFT = 1
EXIT_CONFIGURATION = 2
EXIT_INTERRUPTED = 130
LONGEST = 160
"""Characters of a note in the table."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    try:
        jobs = jobs_of(options.sweep)
        if options.retry_failed:
            again(options.sweep, jobs)
            jobs = jobs_of(options.sweep)
    except (NoSweep, OSError) as error:
        sys.stderr.write(f"error: {one_line(str(error))}\n")
        raise SystemExit(EXIT_CONFIGURATION) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on.\n")
        raise SystemExit(EXIT_INTERRUPTED) from None
    show(jobs)
    if options.retry_failed and any(job.state not in DONE for job in jobs):
        raise SystemExit(EXIT_LEFT)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--list", action="store_true", help="show how each run stands")
    action.add_argument("--retry-failed", action="store_true", help="run those again that did not finish")
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="its folder, as in multirun/<date>/<time>")
    return parser.parse_args(arguments)


def again(sweep: Path, jobs: Sequence[Job]) -> None:
    """Run what did not finish, then write the report."""
    from expert_iteration.reports.sweep import write_sweep_report

    command = [sys.executable, str(Path(__file__).with_name("train.py").resolve())]
    left = [job for job in jobs if job.state not in DONE]
    say(f"{len(left)} of {len(jobs)} runs are left")
    with termination_as_exit():
        for number, (job, code) in enumerate(retry(left, trainer(command)), start=1):
            say(f"{number}/{len(left)}: run {job.folder.name} {job.state.value}, exit code {code}")
            if job.state is State.STOPPED:
                raise KeyboardInterrupt
    say(f"sweep report: {write_sweep_report(sweep)[0]}")


def say(line: str) -> None:
    """At once, between what the runs say."""
    print(line, flush=True)


def show(jobs: Sequence[Job]) -> None:
    """A row for each job, with those of its overrides that not all have."""
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("run", "state", "overrides", "why"):
        drawn.add_column(name, overflow="fold")
    for job in jobs:
        own = " ".join(override for override in job.overrides if override not in common)
        cells = (job.folder.name, job.state.value, own, one_line(job.note, LONGEST))
        drawn.add_row(*map(Text, cells))
    counts = Counter(job.state for job in jobs)
    console = Console(markup=False, emoji=False, highlight=False)
    console.print(drawn)
    console.print(", ".join(f"{counts[state]} {state.value}" for state in State if counts[state]))


if __name__ == "__main__":
    main()
