"""Metrics and some rollouts to TensorBoard, in ``<run folder>/tensorboard``."""

import html
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from expert_iteration.config import RunConfig, to_plain
from expert_iteration.reporting.excerpt import COLUMNS, Row
from expert_iteration.reporting.jsonl import Event
from expert_iteration.reporting.redact import redact
from expert_iteration.reporting.text import one_line

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PLACES = ("iteration", "step", "seconds")
"""Keys of an event that say where it belongs."""
ROLLOUTS = "rollouts"
FINAL = "final/"
"""Before the names of the numbers that a run ended with, in the table that compares runs."""
MARKDOWN = frozenset("\\`*_{}[]()>#+-.!|")
"""What Markdown reads as more than itself, and gives back after a backslash."""

Hyperparameter: TypeAlias = bool | int | float | str

logger = logging.getLogger(__name__)


class TensorboardLogger:
    """Scalars by optimizer step, the configuration as hyperparameters, a table of rollouts per iteration.

    A run that goes on opens another file: TensorBoard drops what older ones say of the step it goes on from
    and of later ones.
    """

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        self._config = config
        self._folder = run_dir / "tensorboard"
        self._writer: SummaryWriter | None = None

    def stand(self, step: int, past: Sequence[Event]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._close()
        try:
            # with a mark in the first file too: TensorBoard takes only later ones for restarts
            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        except OSError as error:
            self._give_up(error)
        for event in past:
            if (event["step"] or 0) >= step:
                self.log(event)

    def log(self, event: Event) -> None:
        step = int(event["step"] or 0)
        scalars = {key: value for key, value in event.items() if value is not None and key not in PLACES}

        def write(writer: "SummaryWriter") -> None:
            for key, value in scalars.items():
                writer.add_scalar(key, value, step)

        self._do(write)

    def rollouts(self, iteration: int, step: int, rows: Sequence[Row]) -> None:
        text = f"Iteration {iteration}\n\n{markdown_table(rows)}"
        self._do(lambda writer: writer.add_text(ROLLOUTS, text, step))

    def finish(self, summary: Mapping[str, Any] | None = None) -> None:
        if summary is not None:
            given = dict(hyperparameters(redact(to_plain(self._config))))
            reached = {
                FINAL + key: value for key, value in summary["end"].items() if isinstance(value, int | float)
            }
            step = summary["steps"]
            # a folder of its own would be a run of its own
            self._do(lambda writer: writer.add_hparams(given, reached, run_name=".", global_step=step))
        self._close()

    def _close(self) -> None:
        self._do(lambda writer: writer.close())
        self._writer = None

    def _do(self, work: Callable[["SummaryWriter"], None]) -> None:
        if self._writer is None:
            return
        try:
            work(self._writer)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        logger.warning("%s cannot be written (%s); metrics.jsonl goes on.", self._folder, error)
        self._writer = None


def hyperparameters(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Hyperparameter]]:
    """The values of a nested configuration by their dotted keys; lists as text, null left out."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from hyperparameters(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value if isinstance(value, bool | int | float | str) else str(value)


def markdown_table(rows: Sequence[Row]) -> str:
    """Rollouts as a Markdown table that shows every text as it stands."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([_cell(row[column]) for column in COLUMNS] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    """Line breaks are shown as such, for a cell has one line; nothing in it is Markdown or HTML."""
    text = "" if value is None else one_line(str(value))
    return "".join(f"\\{char}" if char in MARKDOWN else html.escape(char) for char in text)
