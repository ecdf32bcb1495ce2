"""Progress for people: a live display on a terminal, plain lines everywhere else."""

from collections.abc import Callable
from typing import Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from expert_iteration.reporting.status import PhaseStatus, Status
from expert_iteration.reporting.text import describe, duration
from expert_iteration.types import Metrics

PLAIN_WIDTH = 80
PLAIN_INTERVAL = 10.0
"""Seconds between two plain lines of one phase."""

RESULTS = ("eval/greedy", "eval/pass@1", "selection/kept", "loss/total")
"""What a plain line says of a finished iteration."""

COLUMNS = (
    ("iter", 4, None, "{:.0f}"),
    ("step", 6, "step", "{:,.0f}"),
    ("success", 8, "rollout/success", "{:.1%}"),
    ("kept", 7, "selection/kept", "{:,.0f}"),
    ("loss", 9, "loss/total", "{:.4f}"),
    ("greedy", 8, "eval/greedy", "{:.1%}"),
    ("sampled", 8, "eval/pass@1", "{:.1%}"),
    ("policy", 7, "policy/version", "v{:.0f}"),
)


class View(Protocol):
    """What the reporter asks of a console."""

    def open(self) -> None: ...

    def advanced(self, phase: PhaseStatus) -> None: ...

    def phase_ended(self, phase: PhaseStatus, seconds: float) -> None: ...

    def iteration_ended(self, iteration: int, metrics: Metrics, seconds: float) -> None: ...

    def message(self, text: str) -> None: ...

    def show(self, renderable: RenderableType) -> None: ...

    def close(self) -> None: ...


def make_view(stream: TextIO, status: Status, clock: Callable[[], float]) -> View:
    """A live display when `stream` is a terminal, else plain lines."""
    if not stream.isatty():
        return PlainView(stream, status, clock)
    return TerminalView(Console(file=stream, markup=False, emoji=False, highlight=False), status, clock)


class TerminalView:
    """One line per finished iteration; below them, what is going on now."""

    def __init__(self, console: Console, status: Status, clock: Callable[[], float]) -> None:
        self._console = console
        self._status = status
        self._clock = clock
        self._live = Live(get_renderable=self.render, console=console, refresh_per_second=4, transient=True)
        self._has_header = False

    def open(self) -> None:
        self._live.start()

    def advanced(self, phase: PhaseStatus) -> None:
        """Nothing to do: the display reads the status four times a second."""

    def phase_ended(self, phase: PhaseStatus, seconds: float) -> None:
        """Nothing to do: a finished phase leaves the display."""

    def iteration_ended(self, iteration: int, metrics: Metrics, seconds: float) -> None:
        if not self._has_header:
            names = "".join(f"{name:>{width}}" for name, width, _, _ in COLUMNS)
            self._print(Text(f"{names}{'time':>10}", style="bold"))
            self._has_header = True
        values = {"step": self._status.step} | metrics
        cells = [
            f"{iteration:>{width}}" if key is None else _cell(values.get(key), form, width)
            for _, width, key, form in COLUMNS
        ]
        self._print(Text(f"{''.join(cells)}{duration(seconds):>10}"))

    def message(self, text: str) -> None:
        self._print(Text(text, style="" if text.startswith("INFO") else "yellow"))

    def show(self, renderable: RenderableType) -> None:
        self._console.print(renderable)

    def close(self) -> None:
        self._live.stop()

    def render(self) -> RenderableType:
        """What is going on now: a headline, one bar for each open phase, the newest numbers."""
        now = self._clock()
        phases = Table.grid(padding=(0, 1), expand=True)
        phases.add_column(no_wrap=True, min_width=10)
        phases.add_column(ratio=1)
        for _ in range(2):
            phases.add_column(no_wrap=True, justify="right")
        phases.add_column(no_wrap=True, justify="right", min_width=7)
        for phase in list(self._status.phases.values()):
            phases.add_row(*self._phase_cells(phase, now))
        return Group(Text(""), self._headline(now), phases, self._numbers())

    def _headline(self, now: float) -> RenderableType:
        status = self._status
        seconds_left = status.time_left(now)
        left = "-:--:--" if seconds_left is None else duration(seconds_left)
        line = Table.grid(expand=True)
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True, justify="right")
        line.add_row(
            Text.assemble(
                (f"iteration {status.iteration}/{status.iterations}", "bold"), f"   step {status.step:,}"
            ),
            f"{duration(now - status.started)} elapsed   {left} left",
        )
        return line

    def _phase_cells(self, phase: PhaseStatus, now: float) -> tuple[RenderableType, ...]:
        other = phase.iteration != self._status.iteration
        name = f"{phase.name} ({phase.iteration})" if other else phase.name
        elapsed = now - phase.started
        bar = ProgressBar(total=phase.total, completed=phase.done, pulse=phase.total is None)
        live = "  ".join(describe(phase.live)[:2])
        return Text(name, style="cyan"), bar, _count(phase), live, duration(elapsed)

    def _numbers(self) -> Text:
        shown = ("selection/kept", "loss/total", "eval/greedy", "eval/pass@1", "policy/version")
        return Text("   ".join(describe(self._status.latest, shown)), style="dim", no_wrap=True)

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


class PlainView:
    """Lines for a file or a pipe: no control characters, no markup, nothing that moves."""

    def __init__(self, stream: TextIO, status: Status, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._status = status
        self._clock = clock
        self._written: dict[str, float] = {}

    def open(self) -> None:
        """Nothing to do: there is no display."""

    def advanced(self, phase: PhaseStatus) -> None:
        now = self._clock()
        if now - self._written.get(phase.name, phase.started) >= PLAIN_INTERVAL:
            self._written[phase.name] = now
            self._phase_line(phase, "", now)

    def phase_ended(self, phase: PhaseStatus, seconds: float) -> None:
        self._written.pop(phase.name, None)
        self._phase_line(phase, f"done in {seconds:.1f} s", self._clock())

    def iteration_ended(self, iteration: int, metrics: Metrics, seconds: float) -> None:
        left = self._status.time_left(self._clock())
        words = [f"done in {seconds:.1f} s", *describe(metrics, RESULTS)]
        words += [] if left is None else [f"{duration(left)} left"]
        self._timed(f"{self._iteration(iteration)}: {', '.join(words)}")

    def message(self, text: str) -> None:
        self._write(text)

    def show(self, renderable: RenderableType) -> None:
        console = Console(width=PLAIN_WIDTH, color_system=None, force_terminal=False, markup=False)
        with console.capture() as capture:
            console.print(renderable)
        for line in capture.get().splitlines():
            self._write(line.rstrip())

    def close(self) -> None:
        self._stream.flush()

    def _phase_line(self, phase: PhaseStatus, end: str, now: float) -> None:
        words = [word for word in (_count(phase), end, *describe(phase.live)) if word]
        self._timed(f"{self._iteration(phase.iteration)} {phase.name}: {', '.join(words) or 'going on'}", now)

    def _iteration(self, iteration: int) -> str:
        return f"iteration {iteration}/{self._status.iterations}"

    def _timed(self, line: str, now: float | None = None) -> None:
        since = (self._clock() if now is None else now) - self._status.started
        self._write(f"[{duration(since)}] {line}")

    def _write(self, line: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        self._stream.flush()


def _count(phase: PhaseStatus) -> str:
    if phase.total is None:
        return f"{phase.done:,}" if phase.done else ""
    return f"{phase.done:,}/{phase.total:,}"


def _cell(value: float | None, form: str, width: int) -> str:
    return f"{'-' if value is None else form.format(value):>{width}}"
