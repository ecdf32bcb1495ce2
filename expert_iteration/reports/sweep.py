"""The report of a sweep: one page that says what was varied, what came out best and how to have it again."""

import base64
import shlex
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from expert_iteration.reporting.jsonl import replace_file
from expert_iteration.reporting.text import duration
from expert_iteration.reports.look import asset, page, pictures, text
from expert_iteration.reports.sweep_axes import Axis, axes_of, followers
from expert_iteration.reports.sweep_look import Picture, shown
from expert_iteration.reports.sweep_pictures import pictures_of
from expert_iteration.reports.sweep_ranking import MEASURES, Estimate, Group, command, ranked, rivals
from expert_iteration.reports.sweep_runs import SweepRun
from expert_iteration.sweeps.jobs import Job, State, jobs_of

PAGE = "report.html"
FOLDER = "report"
"""Of the pictures, beside the page."""
INTERVALS = """<p class="soft">95% intervals: of a setting with several runs, that of their mean by Student's
t, which says nothing of other questions, as all answer the same ones; of one run, Wilson's for the number of
questions.</p>
"""


def write_sweep_report(sweep: Path) -> list[Path]:
    """Write `report.html` into the folder of a sweep, and its pictures into `report/`.

    Runs that have not finished are listed, and left out of everything else.

    Returns:
        the page, then the pictures.

    Raises:
        NoSweep: the folder holds no job.
    """
    jobs = jobs_of(sweep)
    runs = [SweepRun(job) for job in jobs if job.state is State.FINISHED]
    axes = axes_of(runs)
    groups = ranked(runs, axes)
    written = list(_draw(sweep / FOLDER, groups, axes))
    parts = (
        _head(sweep, jobs, axes),
        _best(groups),
        _table(sweep, groups, axes),
        _pictures(written),
        _unfinished(sweep, jobs),
        _followers(runs, axes),
    )
    body = "".join(chain.from_iterable(parts))
    replace_file(sweep / PAGE, page(f"Sweep {sweep.name}", body, asset("sweep.css")))
    return [sweep / PAGE, *(file for file, _ in written)]


def _draw(folder: Path, groups: Sequence[Group], axes: Sequence[Axis]) -> Iterator[tuple[Path, Picture]]:
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    with pictures():
        for picture in pictures_of(groups, axes) if groups else ():
            file = folder / f"{picture.name}.png"
            picture.figure.savefig(file, dpi=150)
            yield file, picture


def _head(sweep: Path, jobs: Sequence[Job], axes: Sequence[Axis]) -> Iterator[str]:
    yield f"<h1>Sweep {text(sweep.name)}</h1>\n"
    counts = [f"{len(same)} {state.value}" for state in State if (same := _in_state(jobs, state))]
    yield f'<p class="soft">{len(jobs)} runs: {", ".join(counts)}.</p>\n'
    if axes:
        yield "<h2>What varies</h2>\n<table>\n"
        for axis in axes:
            values = ", ".join(map(shown, axis.values))
            yield f"<tr><td><code>{text(axis.key)}</code></td><td>{text(values)}</td></tr>\n"
        yield "</table>\n"
    elif _in_state(jobs, State.FINISHED):
        yield "<p>The runs that finished differ in nothing but the seed.</p>\n"


def _best(groups: Sequence[Group]) -> Iterator[str]:
    if not groups:
        return
    best, close = groups[0], rivals(groups)
    yield f"<h2>The best setting</h2>\n<pre>{text(command(best))}</pre>\n"
    if len(groups) > 1:
        same = f"the intervals of {len(close)} of the {len(groups) - 1} others meet its own"
        yield f"<p>By greedy accuracy at the end of training; {same}.</p>\n"


def _table(sweep: Path, groups: Sequence[Group], axes: Sequence[Axis]) -> Iterator[str]:
    if not groups:
        return
    names = ["", *(axis.key for axis in axes), *MEASURES.values(), "steps", "time", "runs"]
    yield '<h2>Ranking</h2>\n<div class="ranking"><table>\n<tr>'
    yield "".join(f"<th>{text(name)}</th>" for name in names) + "</tr>\n"
    for number, group in enumerate(groups, start=1):
        cells = [text(number), *(text(shown(value)) for value in group.values)]
        cells += [percent(group.estimate(measure)) for measure in MEASURES]
        cells += [*_effort(group), ", ".join(_link(sweep, run) for run in group.runs)]
        best = ' class="best"' if number == 1 else ""
        yield f"<tr{best}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"
    yield "</table></div>\n"
    yield INTERVALS


def percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate.mean:.1%} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _link(sweep: Path, run: SweepRun) -> str:
    """The name of a run, which leads to its own report where there is one."""
    name = str(run.folder.relative_to(sweep))
    return f'<a href="{text(name)}/{PAGE}">{text(name)}</a>' if (run.folder / PAGE).is_file() else text(name)


def _effort(group: Group) -> tuple[str, str]:
    """Optimizer steps and time of a run, on average."""
    steps, seconds = (
        sum(run.summary.get(key, 0) for run in group.runs) / len(group.runs) for key in ("steps", "seconds")
    )
    return f"{steps:,.0f}", duration(seconds)


def _pictures(written: Sequence[tuple[Path, Picture]]) -> Iterator[str]:
    for file, picture in written:
        data = base64.b64encode(file.read_bytes()).decode("ascii")
        yield (
            f"<h2>{text(picture.title)}</h2>\n<figure>"
            f'<img alt="{text(picture.title)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{text(picture.caption)}</figcaption></figure>\n"
        )


def _unfinished(sweep: Path, jobs: Sequence[Job]) -> Iterator[str]:
    left = [job for job in jobs if job.state is not State.FINISHED]
    if not left:
        return
    yield "<h2>Not finished</h2>\n<table>\n<tr>"
    yield "".join(f"<th>{name}</th>" for name in ("run", "state", "overrides", "why")) + "</tr>\n"
    for job in left:
        words = [text(" ".join(job.overrides)), text(job.note)]
        cells = "".join(f'<td class="words">{word}</td>' for word in words)
        yield f"<tr><td>{text(job.folder.name)}</td><td>{text(job.state.value)}</td>{cells}</tr>\n"
    yield "</table>\n"
    if any(job.state is not State.RUNNING for job in left):
        again = shlex.join(["python", "scripts/sweep.py", "--retry-failed", str(sweep)])
        yield f"<p>This runs them again, alone:</p>\n<pre>{text(again)}</pre>\n"


def _followers(runs: Sequence[SweepRun], axes: Sequence[Axis]) -> Iterator[str]:
    """Keys that change with the axes."""
    if keys := followers(runs, axes):
        named = ", ".join(f"<code>{text(key)}</code>" for key in keys)
        yield f'<h2>What varies along</h2>\n<p class="soft">These follow the keys above: {named}.</p>\n'


def _in_state(jobs: Sequence[Job], state: State) -> list[Job]:
    return [job for job in jobs if job.state is state]
