"""What a run knows of each prompt: ``python scripts/ledger.py RUN [--csv FILE] [--top 10]``.

Reads the ledger of the newest checkpoint, and the questions from the rollouts. Shows the hardest prompts,
those that were solved for the first time of late, and those that were solved once and not at the last visit.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table
from rich.text import Text

from expert_iteration.checkpoint import existing
from expert_iteration.ledger import Ledger, Record
from expert_iteration.reporting.text import one_line

LEDGER = "ledger.json"
"""In every checkpoint; archive.py writes it."""
EXIT_CONFIGURATION = 2
LONGEST_QUESTION = 120
COLUMNS = ("prompt", "level", "solved", "now", "first", "last", "seen", "question")
"""`solved`: of all answers; `now`: at the last visit; `first`, `last`: iterations that solved it."""


class Asked(NamedTuple):
    """A prompt as the rollouts name it; empty where they are gone."""

    task: str = ""
    level: str = ""
    question: str = ""


class NoRun(Exception):
    """The folder holds no ledger."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    try:
        ledger = read_ledger(options.run)
        asked = read_questions(options.run / "rollouts")
        if options.csv is not None:
            write_csv(options.csv, ledger, asked)
    except (NoRun, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(EXIT_CONFIGURATION) from None
    console = Console(markup=False, emoji=False, highlight=False)
    console.print(counts(ledger))
    for title, prompts in rankings(ledger).items():
        if prompts:
            console.print(table(title, prompts[: options.top], len(prompts), ledger, asked))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=details)
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, as in outputs/<run>")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row for each prompt")
    parser.add_argument("--top", type=positive, default=10, help="rows of each table (%(default)s)")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def read_ledger(run: Path) -> Ledger:
    """The ledger of the newest checkpoint.

    Raises:
        NoRun: there is none, or it cannot be read.
    """
    checkpoints = existing(run)
    if not checkpoints:
        raise NoRun(f"{run} holds no checkpoint; name the folder of a run that has saved one.")
    file = checkpoints[-1] / LEDGER
    try:
        return Ledger.of(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoRun(f"{file} holds no ledger ({type(error).__name__}: {error}); name another run.") from error


def read_questions(folder: Path) -> dict[int, Asked]:
    """Prompts by id. A line that a killed run left torn is passed over."""
    found: dict[int, Asked] = {}
    for file in sorted(folder.glob("iteration_*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                found.setdefault(row["prompt_id"], Asked(row["task"], row["level"], row["question"]))
    return found


def rankings(ledger: Ledger) -> dict[str, list[int]]:
    """Prompt ids by what is remarkable of them, the most remarkable first."""
    records = ledger.records
    tried = [prompt for prompt, record in records.items() if record.attempts]
    hardest = sorted(
        tried, key=lambda prompt: (pass_rate(records[prompt]), -records[prompt].attempts, prompt)
    )
    solved = [prompt for prompt in tried if records[prompt].solved]
    newest = sorted(solved, key=lambda prompt: (-(records[prompt].first_solved or 0), prompt))
    forgotten = [prompt for prompt in solved if records[prompt].forgotten]
    return {
        "hardest first": hardest,
        "newly solved first": newest,
        "forgotten": sorted(forgotten, key=lambda prompt: (-records[prompt].last_seen, prompt)),
    }


def pass_rate(record: Record) -> float:
    return record.successes / record.attempts if record.attempts else 0.0


def counts(ledger: Ledger) -> Table:
    """The whole ledger in a few lines."""
    records = list(ledger.records.values())
    attempts, successes = (sum(getattr(r, name) for r in records) for name in ("attempts", "successes"))
    last = max((record.last_seen for record in records), default=0)
    solved = sum(record.solved for record in records)
    rate = f" ({successes / attempts:.1%})" if attempts else ""
    rows = {
        "prompts": f"{len(records):,} visited up to iteration {last}",
        "solved": f"{solved:,}, {len(ledger.newly_solved(last)):,} of them first in iteration {last}",
        "never solved": f"{len(records) - solved:,}",
        "forgotten": f"{sum(record.forgotten for record in records):,}",
        "answers": f"{attempts:,} judged, {successes:,} correct{rate}, "
        f"{sum(record.abstentions for record in records):,} abstained",
        "kept": f"{sum(record.kept for record in records):,}; "
        f"{sum(record.rationalised for record in records):,} prompts have a trace found with a hint",
    }
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, value in rows.items():
        grid.add_row(Text(name, style="bold"), Text(value))
    return grid


def table(
    title: str, prompts: Iterable[int], total: int, ledger: Ledger, asked: Mapping[int, Asked]
) -> Table:
    """One line for each of `prompts`, which are some of `total`."""
    drawn = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", title_style="bold")
    drawn.title = f"\n{title} ({total:,} in all)"
    for name in COLUMNS[:-1]:
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column(COLUMNS[-1], overflow="fold")
    for prompt in prompts:
        record, about = ledger.records[prompt], asked.get(prompt, Asked())
        cells = (
            prompt,
            one_line(about.level, 12),
            f"{record.successes}/{record.attempts}",
            f"{record.last_rate:.0%}",
            _or_dash(record.first_solved),
            _or_dash(record.last_solved),
            record.last_seen,
            one_line(about.question, LONGEST_QUESTION),
        )
        drawn.add_row(*(Text(str(cell)) for cell in cells))
    return drawn


def _or_dash(iteration: int | None) -> str:
    return "-" if iteration is None else str(iteration)


def write_csv(file: Path, ledger: Ledger, asked: Mapping[int, Asked]) -> None:
    """One row for each prompt, by id."""
    names = ["prompt_id", *Asked._fields, "pass_rate", *(item.name for item in fields(Record))]
    with file.open("w", encoding="utf-8", newline="") as out:
        rows = csv.DictWriter(out, names)
        rows.writeheader()
        for prompt, record in sorted(ledger.records.items()):
            about = asked.get(prompt, Asked())._asdict()
            rows.writerow({"prompt_id": prompt, **about, "pass_rate": pass_rate(record), **asdict(record)})


if __name__ == "__main__":
    main()
