"""The end of a run on one screen: what it changed, what it cost, where the files are."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from expert_iteration.reporting.statistics import wilson
from expert_iteration.reporting.text import duration, one_line

SHARES = {
    "eval/greedy": ("accuracy, greedy", "eval/n"),
    "eval/pass@1": ("accuracy, sampled", "eval/n"),
    "eval/format": ("format", "eval/n"),
    "eval/prompt_strict": ("prompts, strict", "eval/n/prompt"),
    "eval/prompt_loose": ("prompts, loose", "eval/n/prompt"),
    "eval/instruction_strict": ("instructions, strict", "eval/n/instruction"),
    "eval/instruction_loose": ("instructions, loose", "eval/n/instruction"),
}
"""Key of a share -> its name in the table, and the key of the number of trials that it is a share of."""
PART = "eval/greedy/"
"""Prefix of the accuracies of parts of the evaluation: levels, `task_...` and `subject_...`."""
MOST_PARTS = 12
"""Rows of one kind of parts that the table has room for."""
FILES = (
    *("summary.json", "metrics.jsonl", "run.log", "rollouts", "checkpoints", "logs"),
    *("tensorboard", "wandb"),
)


def final_report(summary: Mapping[str, Any], run_dir: Path) -> RenderableType:
    """The table shown when a run ends, made of the content of summary.json."""
    parts: list[RenderableType] = [Text("")]
    if summary["end"]:
        parts += [_accuracies(summary["start"], summary["end"]), Text("")]
    return Group(*parts, _facts(summary, run_dir))


def _accuracies(start: Mapping[str, float], end: Mapping[str, float]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for name in ("before", "after"):
        table.add_column(f" {name}", no_wrap=True)
    table.add_column("change", justify="right", no_wrap=True)
    shown, left_out = shown_parts(key.removeprefix(PART) for key in end if key.startswith(PART))
    rows = SHARES | {PART + part: (f"  {words_of_part(part)}", f"eval/n/{part}") for part in shown}
    for key, (name, trials) in rows.items():
        if end.get(key) is not None:
            change = _change(start.get(key), end[key])
            table.add_row(Text(name), _share(start, key, trials), _share(end, key, trials), change)
    if left_out:
        table.add_row(Text(f"  {left_out:,} more", style="dim"), Text("in summary.json", style="dim"))
    return table


def shown_parts(parts: Iterable[str]) -> tuple[list[str], int]:
    """The parts of an evaluation to show, levels first, then tasks and subjects; how many are left out."""
    kinds: dict[str, list[str]] = {"level": [], "task": [], "subject": []}
    for part in sorted(parts, key=_natural):
        kind = part.partition("_")[0]
        kinds[kind if kind in kinds else "level"].append(part)
    shown = [part for own in kinds.values() if len(own) <= MOST_PARTS for part in own]
    return shown, sum(map(len, kinds.values())) - len(shown)


def words_of_part(part: str) -> str:
    return one_line(part.removeprefix("subject_").replace("_", " "), 24)


def _share(values: Mapping[str, float | None], key: str, trials: str) -> str:
    """A share in percent and, where the number of questions is known, its 95% interval."""
    share = values.get(key)
    if share is None:
        return "     -"
    n = values.get(trials)
    if not n:
        return f"{share:6.1%}"
    low, high = wilson(share, round(n))
    return f"{share:6.1%} [{100 * low:4.1f}, {100 * high:5.1f}]"


def _change(before: float | None, after: float) -> Text:
    if before is None:
        return Text("-")
    change = 100 * (after - before)
    return Text(f"{change:+.1f}", style="green" if change > 0 else "red" if change < 0 else "")


def _facts(summary: Mapping[str, Any], run_dir: Path) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    n = summary["end"].get("eval/n")
    if n:
        table.add_row("questions", Text(f"{n:,.0f}; intervals are Wilson's, 95%"))
    table.add_row("rollouts", Text(_rollouts(summary["totals"])))
    table.add_row("ended", Text(_ended(summary)))
    table.add_row("seconds", Text(_seconds(summary["seconds_by_phase"])))
    names = [name for name in FILES if (run_dir / name).exists()]
    table.add_row("files", Text(f"{one_line(str(run_dir))}\n{'  '.join(names)}"))
    return table


def _rollouts(totals: Mapping[str, int]) -> str:
    sampled = totals.get("rollouts", 0)
    words = [f"{sampled:,} sampled"]
    words += [
        f"{totals[name]:,} {name} ({totals[name] / sampled:.1%})"
        for name in ("correct", "kept")
        if sampled and name in totals
    ]
    return ", ".join([*words, f"{totals.get('abstained', 0):,} abstained"])


def _ended(summary: Mapping[str, Any]) -> str:
    iterations, steps = summary["iterations"], summary["steps"]
    took = duration(summary["seconds"])
    return f"{one_line(summary['exit_reason'], 60)}: {iterations:,} iterations, {steps:,} steps, {took}"


def _seconds(by_phase: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {seconds:,.1f}" for name, seconds in by_phase.items()) or "-"


def _natural(key: str) -> list[tuple[int, str]]:
    """`level_10` after `level_9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", key)]
