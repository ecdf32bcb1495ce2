"""The words and tables of a run's page. Every foreign text goes through `text`."""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from expert_iteration.ledger import Ledger
from expert_iteration.reporting.redact import masked, redact
from expert_iteration.reporting.statistics import wilson
from expert_iteration.reporting.text import duration, one_line
from expert_iteration.reports.look import text
from expert_iteration.reports.run_curves import ends, number_of
from expert_iteration.reports.runs import RunFiles
from expert_iteration.reports.spans import KINDS, Chronicle

MEASURES = {"eval/greedy": "held-out accuracy, greedy", "eval/pass@1": "held-out accuracy, sampled"}
MOST_WARNINGS = 20
"""Lines of warnings that are shown at once; the others lie folded below them."""
LONGEST_LINE = 400
SHOWN = {
    "algorithm.name": "{}",
    "algorithm.variant": "{}",
    "model.path": "model {}",
    "task.name": "task {}",
    "prompts_per_iteration": "{} questions an iteration",
    "rollouts_per_prompt": "{} answers each",
    "seed": "seed {}",
}
"""What a run is told by in a line."""


def head(run: RunFiles) -> Iterator[str]:
    yield f"<h1>{text(run.folder.resolve().name)}</h1>\n"
    settings = flat(run.config)
    told = [words.format(settings[key]) for key, words in SHOWN.items() if settings.get(key) is not None]
    if told:
        yield f'<p class="soft">{text(one_line(masked(", ".join(told))))}</p>\n'
    yield '<div class="tiles">\n'
    for title, value, note in tiles(run):
        yield f'<div class="tile"><span>{text(title)}</span><b>{text(value)}</b>'
        yield f"<span>{text(note)}</span></div>\n"
    yield "</div>\n"


def tiles(run: RunFiles) -> Iterator[tuple[str, str, str]]:
    """Title, value and a note to it."""
    questions = run.by_iteration("eval/n")
    for key, title in MEASURES.items():
        if curve := run.by_iteration(key):
            (first, start), (last, end) = ends(curve)
            before = f"before training {start:.1%}{interval(start, questions.get(first))}"
            note = before if last > first else "before training; not measured since"
            yield title, f"{end:.1%}", f"{interval(end, questions.get(last))}; {note}".lstrip("; ")
    yield outcome(run)
    rollouts, kept = run.by_iteration("rollout/count"), run.by_iteration("selection/kept")
    if sampled := sum(rollouts.values()):
        share = sum(kept.values()) / sampled
        yield "answers sampled", f"{sampled:,.0f}", f"{sum(kept.values()):,.0f} kept ({share:.1%})"


def outcome(run: RunFiles) -> tuple[str, str, str]:
    """How the run ended, or that it has not."""
    last: Mapping[str, Any] = run.events[-1] if run.events else {}
    seconds = run.summary.get("seconds", last.get("seconds") or 0.0)
    iterations = run.summary.get("iterations", last.get("iteration") or 0)
    steps = run.summary.get("steps", last.get("step") or 0)
    ended = run.summary.get("exit_reason", "going on, or was killed")
    return "outcome", str(ended), f"{iterations:,} iterations, {steps:,} steps, {duration(seconds)}"


def interval(share: float, questions: float | None) -> str:
    """Wilson's 95% interval in percent; nothing if the number of questions is not known."""
    if not questions:
        return ""
    low, high = wilson(share, round(questions))
    return f" [{100 * low:.1f}, {100 * high:.1f}]"


def warnings(run: RunFiles) -> Iterator[str]:
    lines = [text(one_line(line, LONGEST_LINE)) for line in run.warnings]
    if not lines:
        return
    yield '<div class="warnings">\n<h2 id="warnings">Warnings</h2>\n'
    yield f"<pre>{_lines(lines[:MOST_WARNINGS])}</pre>\n"
    if rest := lines[MOST_WARNINGS:]:
        yield f"<details><summary>{len(rest):,} more</summary><pre>{_lines(rest)}</pre></details>\n"
    yield "</div>\n"


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines)


def numbers(run: RunFiles) -> Iterator[str]:
    """What the pictures show of each iteration, as a table."""
    names = {
        "eval/greedy": "greedy",
        "eval/pass@1": "sampled",
        "rollout/reward": "reward",
        "rollout/format": "format",
        "selection/kept_share": "kept",
        "rollout/entropy": "entropy",
        "rollout/headroom": "headroom",
        "rollout/length_correct": "length right",
        "rollout/length_wrong": "length wrong",
        "policy/age_max": "staleness",
        "rollout/tokens_per_second": "tokens/s",
    }
    columns = {name: values for key, name in names.items() if (values := run.by_iteration(key))}
    if not columns:
        return
    iterations = sorted({at for values in columns.values() for at in values})
    rows = ([at, *(_cell(values.get(at)) for values in columns.values())] for at in iterations)
    yield "<details><summary>The numbers by iteration</summary>\n"
    yield from table(["iteration", *columns], rows, numeric=True)
    yield "</details>\n"


def zeros(titles: Sequence[str]) -> Iterator[str]:
    """What was measured and has no picture."""
    if titles:
        yield f'<p class="soft">0 throughout, and not drawn: {text("; ".join(titles))}.</p>\n'


def spent(chronicle: Chronicle) -> Iterator[str]:
    """Seconds of each process by what it did."""
    lanes = {lane.name.replace("_", " "): chronicle.spent(lane) for lane in chronicle.lanes}
    kinds = [kind for kind in (*KINDS, "wait") if any(kind in seconds for seconds in lanes.values())]
    rows = ([name, *(_seconds(seconds.get(kind)) for kind in kinds)] for name, seconds in lanes.items())
    yield (
        f'<p class="soft">Seconds by process, of {chronicle.seconds:,.1f} in all. What a process does at the '
        "same time counts for each.</p>\n"
    )
    yield from table(["process", *kinds], rows, numeric=True)


def questions(run: RunFiles, ledger: Ledger) -> Iterator[str]:
    """What the ledger knows of all prompts."""
    records = list(ledger.records.values())
    attempts, successes = sum(r.attempts for r in records), sum(r.successes for r in records)
    last = max((record.last_seen for record in records), default=0)
    solved = sum(record.solved for record in records)
    rate = f" ({successes / attempts:.1%})" if attempts else ""
    rationalised = sum(record.rationalised for record in records)
    rows = [
        ("visited", f"{len(records):,} questions up to iteration {last}"),
        ("solved", f"{solved:,}, {len(ledger.newly_solved(last)):,} of them first in iteration {last}"),
        ("never solved", f"{len(records) - solved:,}"),
        ("forgotten", f"{sum(record.forgotten for record in records):,}: solved once, not at the last visit"),
        ("answers", f"{attempts:,} judged, {successes:,} correct{rate}"),
        ("not judged", f"{sum(record.abstentions for record in records):,}"),
        ("kept", f"{sum(record.kept for record in records):,} traces"),
        ("with a hint", f"{rationalised:,} questions have a trace found with a hint"),
    ]
    checkpoint = run.newest_checkpoint
    yield f'<p class="soft">The ledger of {text(checkpoint.name if checkpoint else "")}.</p>\n'
    yield from table([], rows)


def data(report: Mapping[str, Any]) -> Iterator[str]:
    """data_report.json: rows that were read, dropped and used."""
    told = ("dataset", "split", "source", "rows", "kept", "prompts_too_long", "used")
    names = [*(name.removeprefix("prompts_").replace("_", " ") for name in told), "dropped", "notes"]
    rows = (
        [
            *(part[name] for name in told),
            "; ".join(f"{reason}: {rows['count']:,}" for reason, rows in part["dropped"].items()),
            "; ".join(part["notes"]),
        ]
        for part in report["parts"]
    )
    yield from table(names, rows)
    yield f'<p class="soft">Hash of the data: <code>{text(report["hash"])}</code></p>\n'


def configuration(run: RunFiles) -> Iterator[str]:
    if run.overrides:
        command = shlex.join(["python", "scripts/train.py", *map(str, run.overrides)])
        yield f"<pre>{text(one_line(masked(command)))}</pre>\n"
    if run.config:
        lines = OmegaConf.to_yaml(redact(run.config)).splitlines()
        shown = "\n".join(text(one_line(line)) for line in lines)
        yield f"<details><summary>All settings</summary><pre>{shown}</pre></details>\n"
    if versions := run.summary.get("versions"):
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        yield f'<p class="soft">{text(one_line(told))}</p>\n'


def counts(by_iteration: Mapping[int, Counter[str]]) -> Iterator[str]:
    """All rollouts, whether the page carries them or not, by verdict and fate."""
    names = sorted({name for tally in by_iteration.values() for name in tally} - {"rollouts"})
    names.sort(key=lambda name: name.startswith("fate "))
    rows = (
        [at, f"{tally['rollouts']:,}", *(f"{tally[name]:,}" for name in names)]
        for at, tally in by_iteration.items()
    )
    heads = [name.partition(" ")[2].replace("_", " ") for name in names]
    yield "<details><summary>All rollouts, counted by verdict and fate</summary>\n"
    yield from table(["iteration", "rollouts", *heads], rows, numeric=True)
    yield "</details>\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], numeric: bool = False) -> Iterator[str]:
    """Rows of plain texts; where it is `numeric`, all columns but the first are set flush right."""
    yield '<div class="scroll"><table>\n'
    if heads:
        yield _row("th", heads, numeric)
    for row in rows:
        yield _row("td", row, numeric)
    yield "</table></div>\n"


def _row(tag: str, values: Sequence[object], numeric: bool) -> str:
    kinds = (' class="number"' if numeric and place else "" for place in range(len(values)))
    cells = (f"<{tag}{kind}>{_shown(value)}</{tag}>" for kind, value in zip(kinds, values, strict=True))
    return f"<tr>{''.join(cells)}</tr>\n"


def _shown(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return text(one_line(str(value)))


def _cell(value: float | None) -> str:
    return "" if value is None else number_of(value)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their path, as in ``loss.clip``."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
