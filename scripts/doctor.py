"""Can this machine run it: ``python scripts/doctor.py [--quick] [--json] [overrides]``.

The overrides are those of the run, as in placement=one_gpu. Each check is green, or red with the cause and
the remedy. --quick leaves out what starts Ray or vLLM, and so the comparison of engine and trainer. Exit code
0: no check is red; 1: one is; 2: the arguments cannot be composed.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from typing import TextIO, cast

sys.path.insert(0, str(Path(__file__).parents[1]))

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.text import Text

from expert_iteration.config import RunConfig
from expert_iteration.doctor.finding import Finding, Status
from expert_iteration.launch import config_folder, register
from expert_iteration.output import captured_output
from expert_iteration.reporting.text import one_line

EXIT_RED = 1
EXIT_CONFIGURATION = 2
STYLES = {Status.GREEN: "green", Status.RED: "bold red", Status.SKIPPED: "dim"}
NAME_WIDTH = 16


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    begun = time.monotonic()
    try:
        config, run_dir = composed(options.overrides)
    except (HydraException, OmegaConfBaseException) as error:
        sys.stderr.write(f"error: {one_line(str(error))}\n")
        raise SystemExit(EXIT_CONFIGURATION) from None
    with log_folder() as logs:
        with captured_output(logs, "doctor") as terminal:
            timed = list(shown(config, run_dir, options, terminal))
        red = [finding.check for finding, _ in timed if finding.status is Status.RED]
        seconds = time.monotonic() - begun
        if options.json:
            sys.stdout.write(as_json(timed, seconds))
        else:
            log = logs / "logs" / "doctor.log"
            said = (
                f"red: {', '.join(red)}; the libraries' own words are in {log}" if red else "nothing is red"
            )
            sys.stdout.write(f"\n{said} ({seconds:.0f} s)\n")
        if red:
            raise SystemExit(EXIT_RED)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=details)
    parser.add_argument("--quick", action="store_true", help="start neither Ray nor vLLM")
    parser.add_argument("--json", action="store_true", help="write one JSON object instead of lines")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for scripts/train.py")
    return parser.parse_intermixed_args(arguments)


def composed(overrides: Sequence[str]) -> tuple[RunConfig, Path]:
    """The configuration, which is not checked yet, and the folder that a run with it would write into."""
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        whole = compose("train", overrides=list(overrides), return_hydra_config=True)
    run_dir = Path(whole.hydra.run.dir)
    OmegaConf.set_struct(whole, False)
    del whole["hydra"]
    return cast(RunConfig, OmegaConf.to_object(whole)), run_dir


@contextmanager
def log_folder() -> Iterator[Path]:
    """A folder for the output of the libraries, which stays only if something is red."""
    folder = Path(mkdtemp(prefix="doctor-"))
    yield folder
    shutil.rmtree(folder)


def shown(
    config: RunConfig, run_dir: Path, options: argparse.Namespace, terminal: TextIO
) -> Iterator[tuple[Finding, float]]:
    """Each finding with the seconds it took, written down as it comes."""
    from expert_iteration.doctor.consultation import consult

    console = Console(file=terminal, markup=False, emoji=False, highlight=False, soft_wrap=True)
    before = time.monotonic()
    for finding in consult(config, run_dir, options.quick):
        now = time.monotonic()
        if not options.json:
            write(console, finding)
        yield finding, now - before
        before = now


def write(console: Console, finding: Finding) -> None:
    line = Text(f"{finding.status.value:<8}", style=STYLES[finding.status])
    line.append(f"{finding.check:<{NAME_WIDTH}} ", style="bold")
    line.append(one_line(finding.detail), style="default not bold")
    console.print(line)
    if finding.remedy:
        console.print(Text(f"{'':8}{'':{NAME_WIDTH}} remedy: {one_line(finding.remedy)}"))


def as_json(timed: Sequence[tuple[Finding, float]], seconds: float) -> str:
    checks = [asdict(finding) | {"seconds": round(taken, 2)} for finding, taken in timed]
    is_green = all(finding.status is not Status.RED for finding, _ in timed)
    return json.dumps({"green": is_green, "seconds": round(seconds, 2), "checks": checks}, indent=2) + "\n"


if __name__ == "__main__":
    main()
