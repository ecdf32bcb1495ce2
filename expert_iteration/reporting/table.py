"""The end of a run on one screen: what it changed, what it cost, where the files are."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from expert_iteration.reporting.statistics import wilson
from expert_iteration.reporting.text import duration, one_line

SHARES = {
    "eval/greedy": "accuracy, greedy",
    "eval/pass@1": "accuracy, sampled",
    "eval/format": "format",
}
BY_LEVEL = "eval/greedy/"
FILES = ("summary.json", "metrics.jsonl", "run.log", "rollouts", "checkpoints", "logs", "wandb")


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
    levels = sorted((key for key in end if key.startswith(BY_LEVEL)), key=_natural)
    names = SHARES | {key: f"  {one_line(key.removeprefix(BY_LEVEL), 24)}" for key in levels}
    for key, name in names.items():
        if end.get(key) is not None:
            table.add_row(Text(name), _share(start, key), _share(end, key), _change(start.get(key), end[key]))
    return table


def _share(values: Mapping[str, float | None], key: str) -> str:
    """A share in percent and, where the number of questions is known, its 95% interval."""
    share = values.get(key)
    if share is None:
        return "     -"
    n = values.get("eval/n" if key in SHARES else f"eval/n/{key.removeprefix(BY_LEVEL)}")
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
