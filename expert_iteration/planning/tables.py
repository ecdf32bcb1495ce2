"""Building blocks of the plan on the terminal."""

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from expert_iteration.planning.memory import GIB, MIB


def heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def facts(rows: Mapping[str, str]) -> Table:
    """A name and a sentence on each line."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=14)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(Text(name), Text(value))
    return table


def numbers(*columns: str, left: int = 0) -> Table:
    """An empty table, aligned on the right but for its first `left` columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < left else "right", no_wrap=True)
    return table


def size(count: float) -> str:
    """Bytes in words."""
    return f"{count / GIB:,.1f} GiB" if count >= GIB else f"{count / MIB:,.1f} MiB"
