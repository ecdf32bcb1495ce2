"""Where finished groups arrive: the buffer, the log of every rollout and the counts, which must agree."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from threading import Lock
from typing import Concatenate, ParamSpec, TypeVar

from safetensors.torch import load_file, save_file
from tensordict import TensorDictBase

from expert_iteration.batching import flatten_rows, unflatten_rows
from expert_iteration.books import count
from expert_iteration.buffer import RolloutBuffer
from expert_iteration.config import RunConfig
from expert_iteration.faults import reach
from expert_iteration.ledger import Ledger
from expert_iteration.reporting.rollouts import RolloutLog
from expert_iteration.selection import Fate
from expert_iteration.types import Group, Snapshot, Tally

ROWS = "buffer.safetensors"
STATE = "buffer.json"
LEDGER = "ledger.json"


P = ParamSpec("P")
T = TypeVar("T")


def _alone(method: "Callable[Concatenate[Archive, P], T]") -> "Callable[Concatenate[Archive, P], T]":
    """Of all calls of such methods, one is served at a time: as in an actor, whatever thread calls."""

    @wraps(method)
    def served(self: "Archive", *args: P.args, **kwargs: P.kwargs) -> T:
        with self._turn:
            return method(self, *args, **kwargs)

    return served


class Archive:
    """Takes each group once, keeps what selection keeps, and writes everything down."""

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        self._buffer = RolloutBuffer(config)
        self._log = RolloutLog(run_dir / "rollouts", config.logger.tokens)
        self._ledger = Ledger()
        self._books: dict[int, Tally] = {}
        self._totals: Tally = Counter(kept=0)
        """Of all books."""
        self._turn = Lock()
        self._wasted: set[tuple[int, int]] = set()
        """(group, prompt) of the visits that were written down for groups that have yet to come."""

    @_alone
    def add(
        self, groups: Sequence[tuple[Group, Sequence[TensorDictBase]]], wasted: Sequence[Group] = ()
    ) -> None:
        """Take groups with their rows; what selection decides goes into the log, the books and the ledger.

        `wasted` groups are written down likewise, but their visits are not over.
        """
        for group in wasted:
            # an order that is given again, because its collector died, wastes the same visits again
            if (visit := (group.ticket.group_id, group.ticket.prompt.id)) not in self._wasted:
                self._wasted.add(visit)
                self._write(group, dict.fromkeys(group.judged, Fate.NO_SIGNAL), Counter(refilled=1))
        for group, rows in groups:
            reach("buffer.add")
            arrived = group.ticket.group_id
            self._wasted = {visit for visit in self._wasted if visit[0] != arrived}
            fates = self._buffer.add(arrived, rows)
            self._write(group, fates, Counter(groups=1))

    def _stands(self, group_id: int, prompt_id: int) -> bool:
        """Whether a visit is part of the books."""
        return self._buffer.received(group_id) or (group_id, prompt_id) in self._wasted

    def _write(self, group: Group, fates: Mapping[int, Fate], visit: Tally) -> None:
        self._log.write(group, fates)
        self._ledger.add(group, [index for index, fate in fates.items() if fate is Fate.KEPT])
        book = self._books.setdefault(group.ticket.iteration, Counter())
        for counted in (visit + count(group), Counter(str(fate) for fate in fates.values())):
            book.update(counted)
            self._totals.update(counted)

    @_alone
    def draw(self, step: int, rank: int, world_size: int) -> Sequence[TensorDictBase]:
        return self._buffer.draw(step, rank, world_size)

    @_alone
    def set_version(self, version: int) -> None:
        """The engines hold policy `version` now: what grew too old leaves the buffer."""
        self._buffer.set_version(version)

    @_alone
    def snapshot(self) -> Snapshot:
        status = self._buffer.status()
        return Snapshot(
            totals=Counter(self._totals),
            live=status.live,
            uses_left=status.reads_left,
            steps_left=status.steps_left,
            consumed=status.reads + status.forfeited,
            expired=status.expired,
            oldest_age=status.oldest_age,
        )

    @_alone
    def book(self, iteration: int) -> Tally:
        """Counts of one iteration."""
        return self._books.get(iteration, Counter())

    @_alone
    def ledger(self) -> Ledger:
        """What is known of each prompt."""
        return self._ledger

    @_alone
    def missing(self, group_ids: Sequence[int]) -> list[int]:
        """Those of `group_ids` that have not arrived."""
        return self._buffer.missing(group_ids)

    @_alone
    def save(self, folder: Path) -> None:
        values, rows = self._buffer.state()
        books = {iteration: dict(sorted(book.items())) for iteration, book in sorted(self._books.items())}
        state = {"buffer": values, "books": books, "wasted": sorted(self._wasted)}
        (folder / LEDGER).write_text(json.dumps(self._ledger.state()), encoding="utf-8")
        save_file(flatten_rows(rows), folder / ROWS)
        (folder / STATE).write_text(json.dumps(state), encoding="utf-8")

    @_alone
    def load(self, folder: Path) -> None:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        self._buffer.restore(state["buffer"], unflatten_rows(load_file(folder / ROWS)))
        self._ledger = Ledger.of(json.loads((folder / LEDGER).read_text(encoding="utf-8")))
        self._books = {int(iteration): Counter(book) for iteration, book in state["books"].items()}
        self._totals = Counter(kept=0)
        for book in self._books.values():
            self._totals.update(book)
        self._wasted = {(group_id, prompt_id) for group_id, prompt_id in state["wasted"]}
        self._log.keep(lambda row: self._stands(int(row["group_id"]), int(row["prompt_id"])))
