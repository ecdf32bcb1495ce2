"""An evaluation on one screen, made of the content of evaluation.json."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from expert_iteration.reporting.table import shown_parts, words_of_part
from expert_iteration.reporting.text import one_line

OF_SEVERAL = ("pass@", "maj@")
"""Beginnings of measures of several answers to a question."""
BETTER_IF_HIGHER = ("pass@", "maj@", "format")
KINDS = {
    "format_1_answer_1": "format and answer right",
    "format_1_answer_0": "format right, answer wrong",
    "format_0_answer_0": "both wrong",
    "format_0_answer_1": "answer right, format wrong",
    "not_judged": "not judged",
}
"""Categories of answers, in words."""
NAME_WIDTH = 28
CELL_WIDTH = 22
LONGEST_LINE = 48
INTERVALS = "95% intervals: Wilson's of single answers, else a bootstrap over questions"


def print_scores(result: Mapping[str, Any], stream: TextIO) -> None:
    """All tables, one below the other, as wide as they need to be."""
    console = Console(file=stream, markup=False, emoji=False, highlight=False)
    console.width = max(console.width, NAME_WIDTH + CELL_WIDTH * (1 + len(result["sampled"])))
    with console.capture() as capture:
        console.print(scores(result))
    stream.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def scores(result: Mapping[str, Any]) -> RenderableType:
    kinds = result["categories"]
    tables: list[RenderableType] = [_measures(result), Text(INTERVALS, style="dim")]
    tables += [Text(""), _categories(kinds), Text(""), _examples(kinds)]
    if against := result.get("against"):
        tables += [Text(""), _against(against)]
    return Group(Text(""), *tables)


def _measures(result: Mapping[str, Any]) -> Table:
    """A column for the greedy answers and one for each temperature."""
    table = _table()
    table.add_column(f"{result['questions']:,} questions")
    table.add_column("greedy", no_wrap=True)
    for sampled in result["sampled"]:
        n = sampled["answers_per_question"]
        table.add_column(f"temperature {sampled['temperature']:g} x {n}", no_wrap=True)
    columns = [result["greedy"], *(sampled["measures"] for sampled in result["sampled"])]
    for row in _rows(columns):
        table.add_row(*row)
    if result["by_seed"]:
        table.add_row("accuracy of each seed", "", *_seeds(result))
    shown, left_out = shown_parts(result["parts"])
    for part in shown:
        own = result["parts"][part]
        measures = [own["greedy"], *(sampled["measures"] for sampled in own["sampled"])]
        name = f"  {words_of_part(part)} ({own['questions']:,})"
        table.add_row(Text(name), *(_cell("accuracy", _accuracy(one)) for one in measures))
    if left_out:
        table.add_row(Text(f"  {left_out:,} more", style="dim"), Text("in evaluation.json", style="dim"))
    return table


def _rows(columns: Sequence[Mapping[str, Any]]) -> Iterator[list[Text]]:
    """Name and cells of each measure."""
    yield [Text("accuracy"), *(_cell("accuracy", _accuracy(one)) for one in columns)]
    found = dict.fromkeys(name for one in columns for name in one)
    names = [name for name in found if name not in ("greedy", "pass@1") and not name.startswith("avg@")]
    for name in sorted(names, key=lambda name: not name.startswith(OF_SEVERAL)):
        yield [Text(name.replace("_", ", ")), *(_cell(name, one.get(name)) for one in columns)]


def _seeds(result: Mapping[str, Any]) -> Iterator[Text]:
    """At each temperature, the accuracy of the worst seed and of the best."""
    for sampled in result["sampled"]:
        own = [one for one in result["by_seed"] if one["temperature"] == sampled["temperature"]]
        accuracies = [one["measures"]["pass@1"] for one in own]
        yield Text(f"{min(accuracies):6.1%} to {max(accuracies):.1%}")


def _accuracy(measures: Mapping[str, Any]) -> Mapping[str, float]:
    """Of one greedy answer, or the mean over sampled ones."""
    found: Mapping[str, float] = measures["greedy"] if "greedy" in measures else measures["pass@1"]
    return found


def _cell(name: str, estimate: Mapping[str, float] | None) -> Text:
    if estimate is None:
        return Text("     -")
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if name == "length":
        return Text(f"{value:6,.1f} [{low:,.1f}, {high:,.1f}]")
    return Text(f"{value:6.1%} [{100 * low:4.1f}, {100 * high:5.1f}]")


def _categories(groups: Sequence[Mapping[str, Any]]) -> Table:
    """How many answers are of each kind, a column for the greedy ones and one for each temperature."""
    table = _table()
    table.add_column("answers", no_wrap=True)
    for group in groups:
        table.add_column(_answers(group["temperature"]), no_wrap=True, justify="right")
    for kind, name in KINDS.items():
        own = [group["kinds"][kind] for group in groups]
        if any(one["count"] for one in own):
            table.add_row(Text(name), *(Text(f"{one['count']:,} ({one['share']:.1%})") for one in own))
    return table


def _examples(groups: Sequence[Mapping[str, Any]]) -> Table:
    """The first line of an answer of each kind."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for kind, name in KINDS.items():
        texts = [one["text"] for group in groups for one in group["kinds"][kind]["examples"]]
        if texts:
            line = next(iter(texts[0].strip().splitlines()), "")
            table.add_row(Text(name, style="dim"), Text(one_line(line, LONGEST_LINE), style="dim"))
    return table


def _against(against: Mapping[str, Any]) -> Table:
    """Differences in percentage points (lengths in tokens), and where the two are not equally good."""
    table = _table()
    table.title = f"against {one_line(against['folder'])}: differences in points, paired"
    table.title_justify, table.title_style = "left", "bold"
    for name in ("", "here", "there", "difference", "higher here / there"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for group in against["temperatures"]:
        for name, one in group["measures"].items():
            if one["here"] == one["there"] == 0:
                continue
            row = f"{_words(name)}, {_answers(group['temperature'])}"
            table.add_row(Text(row), *_compared(name, one))
    return table


def _compared(name: str, one: Mapping[str, float]) -> list[Text]:
    scale, form = (1, "{:.1f}") if name == "length" else (100, "{:.1f}%")
    low, high, difference = (scale * one[key] for key in ("low", "high", "difference"))
    sure = name.startswith(BETTER_IF_HIGHER) and not low <= 0 <= high
    style = ("green" if low > 0 else "red") if sure else ""
    return [
        Text(form.format(scale * one["here"])),
        Text(form.format(scale * one["there"])),
        Text(f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]", style=style),
        Text(f"{one['higher_here']:,} / {one['higher_there']:,}"),
    ]


def _answers(temperature: float) -> str:
    return "greedy" if temperature == 0 else f"temperature {temperature:g}"


def _words(measure: str) -> str:
    return "accuracy" if measure == "pass@1" else measure


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
