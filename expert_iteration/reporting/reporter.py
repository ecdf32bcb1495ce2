"""What the main loop talks to: progress, metrics and the summary of a run."""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.text import Text

from expert_iteration.config import RunConfig
from expert_iteration.reporting.console import View, make_view
from expert_iteration.reporting.excerpt import excerpt
from expert_iteration.reporting.jsonl import Event, EventLog, write_json
from expert_iteration.reporting.loggers import Logger, make_loggers
from expert_iteration.reporting.messages import captured_messages
from expert_iteration.reporting.status import PhaseStatus, Status
from expert_iteration.reporting.table import final_report
from expert_iteration.reporting.versions import versions
from expert_iteration.timeline import Timeline
from expert_iteration.types import Metrics, Tally

logger = logging.getLogger(__name__)


class Phase:
    """A stretch of work that is open until `close`, or until its ``with`` block ends."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close: Callable[[], None] | None = close

    def close(self) -> None:
        """End the phase; a second call does nothing."""
        if self._close is not None:
            close, self._close = self._close, None
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Reporter:
    """Console, metrics.jsonl, summary.json and the loggers that are asked for; used by one thread.

        with Reporter(config, run_dir) as reporter:
            reporter.start()
            reporter.stamp({"grader_version": "2"})
            with reporter.phase("collect", total=1024, iteration=1):
                reporter.advance("collect", 8, {"rollout/tokens_per_second": 1834.0})
            reporter.log({"selection/kept": 311.0}, iteration=1, step=40)
            reporter.end_iteration(1)
            reporter.finish("finished", tally)

    Phases may overlap, as collecting and learning do in an asynchronous run; their seconds are then
    seconds of wall time that count twice. Leaving the ``with`` block restores the terminal and the
    logger whatever happened; without `finish` there is no summary.json.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._run_dir = run_dir
        self._clock = clock
        self._status = Status(config.iterations, started=clock())
        self._view: View = make_view(stream or sys.stdout, self._status, clock)
        self._timeline = Timeline(run_dir, "driver")
        self._resources = ExitStack()
        self._events: EventLog | None = None
        self._loggers: list[Logger] = []
        self._facts: dict[str, str] = {}
        self._seconds_before = 0.0
        self._seconds_by_phase: dict[str, float] = {}
        self._seconds_to_log: dict[str, float] = {}
        self._first_eval: dict[str, float | None] = {}
        self._last_eval: dict[str, float | None] = {}

    def start(self, iteration: int = 0, step: int = 0, events: int = 0) -> None:
        """Open the files and the display.

        Args:
            iteration: last iteration that is over; above 0 when a run is resumed.
            step: optimizer steps that are done.
            events: lines of metrics.jsonl that belong to what is done; a killed run may have left more.
        """
        self._run_dir.mkdir(parents=True, exist_ok=True)
        (self._run_dir / "summary.json").unlink(missing_ok=True)
        self._resources.enter_context(captured_messages(self._view.message, self._run_dir / "run.log"))
        self._events = EventLog(self._run_dir / "metrics.jsonl", events)
        self._resources.callback(self._close_events)
        self._remember(self._events.past)
        self._status.iteration, self._status.step = iteration, step
        self._loggers = make_loggers(self._config, self._run_dir)
        for listener in self._loggers:
            self._resources.callback(listener.finish)
        self._stand()
        self._status.started = self._clock()
        self._status.end(iteration, self._status.started)
        self._view.open()
        self._resources.callback(self._view.close)

    def go_back(self, iteration: int, step: int, events: int) -> None:
        """Forget what was said since the run stood there before; arguments as of `start`."""
        assert self._events is not None, "Reporter.start comes first"
        self._events.close()
        self._events = EventLog(self._run_dir / "metrics.jsonl", events)
        self._first_eval, self._last_eval = {}, {}
        for event in self._events.past:
            self._remember_eval(event)
        status = self._status
        status.iteration, status.step = iteration, step
        for open_or_half_known in (status.phases, status.rows, status.ends):
            open_or_half_known.clear()
        status.end(iteration, self._clock())
        self._stand()

    @property
    def events(self) -> int:
        """Lines of metrics.jsonl so far."""
        assert self._events is not None, "Reporter.start comes first"
        return self._events.lines

    def stamp(self, facts: Mapping[str, str]) -> None:
        """Record what the run rests on: as ``run/<fact>`` in metrics.jsonl, by its name in summary.json."""
        assert self._events is not None, "Reporter.start comes first"
        self._facts |= facts
        named = {f"run/{name}": fact for name, fact in facts.items()}
        self._events.stamp(named, self._status.iteration, self._status.step, self._seconds())

    def phase(self, name: str, total: int | None = None, iteration: int | None = None) -> Phase:
        """Begin a phase: `collect`, `learn`, `publish`, `evaluate`, `save` or another.

        Args:
            total: units of work to do (rollouts, steps, questions); None when nobody knows.
            iteration: the one it works for; None: the newest one.
        """
        assert name not in self._status.phases, f"phase {name} is already open"
        status = self._status
        status.iteration = max(status.iteration, iteration or 0)
        number = status.iteration if iteration is None else iteration
        status.phases[name] = PhaseStatus(name, number, total, self._clock())
        return Phase(lambda: self._end_phase(name))

    def advance(self, phase: str, amount: int = 1, live: Mapping[str, float] | None = None) -> None:
        """`amount` more units of an open phase are done; `live` are its newest metrics, for display only."""
        state = self._status.phases[phase]
        state.done += amount
        state.live |= live or {}
        self._status.latest |= live or {}
        self._view.advanced(state)

    def log(self, metrics: Metrics, iteration: int, step: int) -> None:
        """Record one event. ``time/<phase>``, the seconds of phases ended since the last event, is added."""
        assert self._events is not None, "Reporter.start comes first"
        timed = {
            f"time/{name}": round(seconds, 3) for name, seconds in self._seconds_to_log.items()
        } | metrics
        self._seconds_to_log.clear()
        event = self._events.write(timed, iteration, step, self._seconds())
        self._remember_eval(event)
        status = self._status
        status.iteration, status.step = max(status.iteration, iteration), max(status.step, step)
        status.latest |= metrics
        status.rows.setdefault(iteration, {}).update(metrics)
        for listener in self._loggers:
            listener.log(event)

    def end_iteration(self, iteration: int) -> None:
        """Show the iteration's line; iteration 0 is the evaluation before training."""
        now = self._clock()
        seconds = now - self._status.ends[-1][1]
        self._status.end(iteration, now)
        self._view.iteration_ended(iteration, self._status.rows.pop(iteration, {}), seconds)
        self._show_rollouts(iteration)

    def finish(self, exit_reason: str, totals: Tally) -> None:
        """Write summary.json, show what the run achieved, close everything.

        Args:
            totals: counts over the whole run (`rollouts`, `correct`, `kept`, `abstained`, ...).
        """
        for name in list(self._status.phases):
            self._end_phase(name)
        summary = {
            "exit_reason": exit_reason,
            "iterations": self._status.ends[-1][0],
            "steps": self._status.step,
            "seconds": round(self._seconds(), 3),
            "start": self._first_eval,
            "end": self._last_eval,
            "seconds_by_phase": {name: round(value, 3) for name, value in self._seconds_by_phase.items()},
            "totals": dict(totals),
            "versions": versions(),
            **self._facts,
        }
        write_json(self._run_dir / "summary.json", summary)
        for listener in self._loggers:
            listener.finish(summary)
        self.close()
        self._view.show(final_report(summary, self._run_dir))

    def note(self, text: str) -> None:
        """A line for people, also after `finish`."""
        self._view.show(Text(text))

    def _stand(self) -> None:
        """Tell the loggers where the run stands."""
        assert self._events is not None, "the file comes first"
        past = [event for event in self._events.past if any("/" in key for key in event)]
        for listener in self._loggers:
            listener.stand(self._status.step, past)
        if past and past[-1]["iteration"] == self._status.iteration:
            # a kill may have come between the end of the iteration and its rollouts
            self._show_rollouts(self._status.iteration)

    def _show_rollouts(self, iteration: int) -> None:
        count = self._config.logger.rollout_rows
        if self._loggers and (rows := excerpt(self._run_dir, iteration, count)):
            for listener in self._loggers:
                listener.rollouts(iteration, self._status.step, rows)

    def _close_events(self) -> None:
        """Whichever file is open by then: `go_back` opens another one."""
        if self._events is not None:
            self._events.close()

    def close(self) -> None:
        """Give back the terminal, the files and the logger. A second call does nothing."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end_phase(self, name: str) -> None:
        phase = self._status.phases.pop(name, None)
        if phase is None:
            return
        seconds, now = self._clock() - phase.started, time.time()
        self._timeline.add(name, phase.iteration, now - seconds, now)
        for total in (self._seconds_by_phase, self._seconds_to_log):
            total[name] = total.get(name, 0.0) + seconds
        self._view.phase_ended(phase, seconds)

    def _seconds(self) -> float:
        return self._seconds_before + self._clock() - self._status.started

    def _remember(self, events: list[Event]) -> None:
        """Take over what earlier sessions of the run have measured."""
        for event in events:
            self._remember_eval(event)
            self._seconds_before = event.get("seconds") or self._seconds_before
            for key, value in event.items():
                if key.startswith("time/"):
                    name = key.removeprefix("time/")
                    self._seconds_by_phase[name] = self._seconds_by_phase.get(name, 0.0) + (value or 0.0)

    def _remember_eval(self, event: Event) -> None:
        values = {key: value for key, value in event.items() if key.startswith("eval/")}
        self._first_eval = values | self._first_eval
        self._last_eval = self._last_eval | values
