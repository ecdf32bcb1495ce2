"""When each process did what: the rows of ``<run>/timeline/<process>.jsonl``."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Timeline:
    """Spans of one process, appended as they end; sessions of a resumed run follow each other.

    A row holds `stage`, `iteration` (null where it belongs to none), `start` and `end` in seconds of the
    wall clock since 1970. Threads may share one: a row is one write.
    """

    def __init__(self, run_dir: Path | None = None, process: str = "") -> None:
        """Without a folder, spans go nowhere."""
        self._path = None if run_dir is None else run_dir / "timeline" / f"{process.replace(' ', '_')}.jsonl"

    @contextmanager
    def span(self, stage: str, iteration: int | None = None) -> Iterator[None]:
        """The ``with`` block is one span, also when it fails."""
        start = time.time()
        try:
            yield
        finally:
            self.add(stage, iteration, start, time.time())

    def add(self, stage: str, iteration: int | None, start: float, end: float) -> None:
        if self._path is None:
            return
        row = {"stage": stage, "iteration": iteration, "start": round(start, 4), "end": round(end, 4)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab", buffering=0) as file:
            file.write(f"{json.dumps(row)}\n".encode("ascii"))
