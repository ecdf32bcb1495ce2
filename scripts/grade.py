"""Judge answers of a file or of standard input: JSON rows in, JSON rows out, in the same order.

    python scripts/grade.py --style boxed answers.jsonl > verdicts.jsonl
    head -1 answers.jsonl | python scripts/grade.py --style boxed --explain

A row in has "id", "response" (the whole text of the model) and "gold". A row out has the id, "success" (true,
false, or null when it could not be judged), "reward", "reason", "outcome" and "format_reward". A row that
cannot be read is answered in its place, with success null. Every row is answered as soon as it is judged.
"""

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from expert_iteration.books import alarm, count_verdicts
from expert_iteration.config import ConfigError, GradingConfig
from expert_iteration.grading import STYLES, Grader
from expert_iteration.grading.explain import explain
from expert_iteration.grading.grader import VERIFIER
from expert_iteration.grading.lines import bundles
from expert_iteration.grading.pool import Pool, WorkerStartError
from expert_iteration.grading.rows import judged, read_row, write_row
from expert_iteration.types import Outcome, Tally

EXIT_CONFIGURATION = 2
EXIT_LOST = 3
EXIT_PIPE = 128 + signal.SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 2: an option or the file cannot be used; 3: math-verify does not start."""
    _end_at_once_on_interrupt()
    options = _options(arguments)
    work = _explain_first if options.explain else _judge_all
    try:
        with ExitStack() as resources:
            config = _config(options)
            descriptor = _open(options.file, resources)
            work(resources.enter_context(Grader(config)), options, descriptor)
    except (ConfigError, WorkerStartError) as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_CONFIGURATION if isinstance(error, ConfigError) else EXIT_LOST
    except BrokenPipeError:
        # Nobody reads any more; Python would say so once again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    return 0


def _judge_all(grader: Grader, options: argparse.Namespace, descriptor: int) -> None:
    total: Tally = Counter()
    begun = time.monotonic()
    for rows in judged(grader, options.style, bundles(descriptor)):
        sys.stdout.write("".join(write_row(row, verdict) for row, verdict in rows))
        sys.stdout.flush()
        verdicts = [verdict for _, verdict in rows]
        total.update(count_verdicts(verdicts))
        total.update(unparsable=sum(verdict.outcome is Outcome.UNPARSABLE for verdict in verdicts))
    sys.stderr.write(_summary(total, time.monotonic() - begun))
    if problem := alarm(total):
        remedy = f"raise --deadline ({options.deadline:g} s) against timeouts"
        sys.stderr.write(f"WARNING: {problem}; their rows say why; {remedy}.\n")


def _summary(total: Tally, seconds: float) -> str:
    rows = total["rollouts"]
    wrong = rows - total["correct"] - total["unparsable"] - total["abstained"]
    return (
        f"{rows:,} rows: {total['correct']:,} correct, {wrong:,} wrong, {total['unparsable']:,} unparsable, "
        f"{total['abstained']:,} abstained; {rows / max(seconds, 1e-9):,.0f} rows/s\n"
    )


def _explain_first(grader: Grader, options: argparse.Namespace, descriptor: int) -> None:
    lines = (line for bundle in bundles(descriptor) for line in bundle)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            with closing(Pool(VERIFIER, 1, options.deadline)) as search:
                sys.stdout.write(explain(grader, search, read_row(line, number, options.style)))
            return
    raise ConfigError("--explain: there is no row to explain; give one on standard input or in a file.")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", default="-", help="JSONL file; standard input without one")
    parser.add_argument("--style", required=True, help=f"where the answer stands: {', '.join(STYLES)}")
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="math-verify processes (%(default)s)",
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=GradingConfig().deadline,
        help="seconds for one answer (%(default)s)",
    )
    parser.add_argument(
        "--explain", action="store_true", help="show how the first row is judged, step by step"
    )
    return parser.parse_args(arguments)


def _config(options: argparse.Namespace) -> GradingConfig:
    if options.style not in STYLES:
        raise ConfigError(f"--style ({options.style}) is not one of {', '.join(STYLES)}.")
    if options.workers < 1:
        raise ConfigError(f"--workers ({options.workers}) must be at least 1.")
    if not 0.1 <= options.deadline < float("inf"):
        raise ConfigError(f"--deadline ({options.deadline:g}) must be at least 0.1 seconds.")
    return GradingConfig(options.workers, options.deadline)


def _open(file: str, resources: ExitStack) -> int:
    """File descriptor of the input."""
    try:
        if file == "-":
            return os.fdopen(0, "rb", buffering=0, closefd=False).fileno()
        return resources.enter_context(Path(file).open("rb", buffering=0)).fileno()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; name a JSONL file.") from error


def _end_at_once_on_interrupt() -> None:
    """Ctrl-C ends this process without a word; the kernel then ends the workers, whatever they compute."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
