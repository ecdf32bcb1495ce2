"""Where finished groups arrive: the buffer, the log of every rollout and the counts, which must agree."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from tensordict import TensorDictBase

from expert_iteration.batching import flatten_rows, unflatten_rows
from expert_iteration.books import count
from expert_iteration.buffer import RolloutBuffer
from expert_iteration.config import RunConfig
from expert_iteration.reporting.rollouts import RolloutLog
from expert_iteration.types import Group, Snapshot, Tally

ROWS = "buffer.safetensors"
STATE = "buffer.json"


class Archive:
    """Takes each group once, keeps what selection keeps, and writes everything down."""

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        self._buffer = RolloutBuffer(config)
        self._log = RolloutLog(run_dir / "rollouts")
        self._books: dict[int, Tally] = {}

    def add(self, groups: Sequence[tuple[Group, Sequence[TensorDictBase]]]) -> None:
        """Take groups with their rows; what selection decides goes into the log and the books."""
        for group, rows in groups:
            fates = self._buffer.add(group.ticket.group_id, rows)
            self._log.write(group, fates)
            book = self._books.setdefault(group.ticket.iteration, Counter())
            book.update(count(group))
            book.update(Counter(str(fate) for fate in fates.values()))

    def draw(self, step: int, rank: int, world_size: int) -> Sequence[TensorDictBase]:
        return self._buffer.draw(step, rank, world_size)

    def set_version(self, version: int) -> None:
        """The engines hold policy `version` now: what grew too old leaves the buffer."""
        self._buffer.set_version(version)

    def snapshot(self) -> Snapshot:
        totals: Tally = sum(self._books.values(), Counter())
        status = self._buffer.status()
        return Snapshot(
            totals=totals,
            live=status.live,
            uses_left=status.reads_left,
            steps_left=status.steps_left,
            consumed=status.reads + status.forfeited,
            expired=status.expired,
            oldest_age=status.oldest_age,
        )

    def book(self, iteration: int) -> Tally:
        """Counts of one iteration."""
        return self._books.get(iteration, Counter())

    def missing(self, groups: int) -> list[int]:
        """Of the groups 0 .. `groups` - 1, those that have not arrived."""
        return self._buffer.missing(groups)

    def save(self, folder: Path) -> None:
        values, rows = self._buffer.state()
        books = {iteration: dict(book) for iteration, book in self._books.items()}
        state = {"buffer": values, "books": books}
        save_file(flatten_rows(rows), folder / ROWS)
        (folder / STATE).write_text(json.dumps(state), encoding="utf-8")

    def load(self, folder: Path) -> None:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        self._buffer.restore(state["buffer"], unflatten_rows(load_file(folder / ROWS)))
        self._books = {int(iteration): Counter(book) for iteration, book in state["books"].items()}
