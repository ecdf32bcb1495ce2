"""The collect phase as the display shows it: open while any collector has an order."""

import time
from collections import Counter

from expert_iteration.reporting.reporter import Phase, Reporter
from expert_iteration.types import Tally


class Collecting:
    """Orders go out and come back, maybe several at a time; totals say what has arrived."""

    def __init__(self, reporter: Reporter, total: int | None) -> None:
        """`total` is the number of rollouts of one phase; None when phases have no end of their own."""
        self._reporter = reporter
        self._total = total
        self._orders = 0
        self._phase: Phase | None = None
        self._opened = self._counted_from = 0.0
        self._seconds = 0.0
        self._before: Tally = Counter()
        self._seen: Tally = Counter()

    def order_out(self, iteration: int) -> None:
        self._orders += 1
        if self._phase is None:
            self._phase = self._reporter.phase("collect", self._total, iteration)
            self._before = self._seen
            self._opened = self._counted_from = time.monotonic()

    def order_back(self, totals: Tally) -> None:
        self.look(totals)
        self._orders -= 1
        if self._orders == 0 and self._phase is not None:
            self._seconds += time.monotonic() - self._counted_from
            self._phase.close()
            self._phase = None

    def look(self, totals: Tally) -> None:
        """`totals` are the counts of the run so far."""
        new, self._seen = totals["rollouts"] - self._seen["rollouts"], totals
        if self._phase is None:
            return
        seconds = max(time.monotonic() - self._opened, 1e-9)
        live = {
            "selection/kept": float(totals["kept"] - self._before["kept"]),
            "rollout/tokens_per_second": (totals["tokens"] - self._before["tokens"]) / seconds,
        }
        self._reporter.advance("collect", new, live)

    def take_seconds(self) -> float:
        """Seconds of collecting since the last call."""
        if self._phase is not None:
            now = time.monotonic()
            self._seconds += now - self._counted_from
            self._counted_from = now
        seconds, self._seconds = self._seconds, 0.0
        return seconds
