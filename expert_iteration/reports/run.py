"""The report of a run: one page that loads nothing, and its pictures beside it."""

import base64
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from expert_iteration.ledger import Ledger
from expert_iteration.reporting.jsonl import replace_file
from expert_iteration.reporting.text import one_line
from expert_iteration.reports import run_bars, run_curves, run_plots, run_sections
from expert_iteration.reports.look import asset, page, pictures, text
from expert_iteration.reports.packing import BUDGET, Packed, pack
from expert_iteration.reports.pieces import Pieces
from expert_iteration.reports.run_curves import Picture
from expert_iteration.reports.run_timeline import timelines
from expert_iteration.reports.runs import RunFiles
from expert_iteration.reports.spans import Chronicle

PAGE = "report.html"
FOLDER = "report"
"""Of the pictures, beside the page."""
DPI = 160
COMPRESSION = 3
"""Of pictures: half the time of zlib's usual level."""


@dataclass(frozen=True)
class Section:
    """A part of the page; one without HTML is left out."""

    title: str
    html: str

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-")


def write_run_report(run: Path, budget: int = BUDGET) -> Path:
    """Write `report.html` into the folder of a run, and its pictures into `report/`.

    Args:
        budget: characters of the page that rollouts may take; what does not fit is left out, which is said.

    Returns:
        the page.

    Raises:
        NoRun: there is no metrics.jsonl.
        OSError, ValueError, KeyError: a file of the run cannot be read, or is not what a run writes.
    """
    files = RunFiles.of(run)
    (run / FOLDER).mkdir(exist_ok=True)
    for old in (run / FOLDER).glob("*.png"):
        old.unlink()
    sections = [section for section in _sections(files, budget) if section.html]
    contents = "".join(f'<a href="#{section.anchor}">{text(section.title)}</a>\n' for section in sections)
    parts = chain(
        run_sections.head(files),
        [f'<nav class="contents" aria-label="contents">\n{contents}</nav>\n'],
        run_sections.warnings(files),
        (f'<h2 id="{one.anchor}">{text(one.title)}</h2>\n{one.html}' for one in sections),
    )
    title = f"Run {run.resolve().name}"
    replace_file(run / PAGE, page(title, "".join(parts), asset("run.css")))
    return run / PAGE


def _sections(run: RunFiles, budget: int) -> Iterator[Section]:
    chronicle = Chronicle.of(run.folder)
    kinds = run_curves.parts(run)
    accuracy = [run_plots.ACCURACY] + ([kinds] if kinds else [])
    lanes = timelines(chronicle) if chronicle else ()
    yield _section("Accuracy", _figures(run, run_curves.drawn(run, accuracy)), run_sections.numbers(run))
    sampled = chain(run_curves.drawn(run, run_plots.SAMPLING), run_bars.fates(run))
    yield _section("Sampling", _figures(run, sampled))
    learned = _figures(run, run_curves.drawn(run, run_plots.LEARNING))
    yield _section("Learning", learned, run_sections.zeros(run_curves.zero(run, run_plots.LEARNING)))
    timed = chain(run_curves.drawn(run, [run_plots.THROUGHPUT]), run_bars.phases(run), lanes)
    yield _section("Time", _figures(run, timed), run_sections.spent(chronicle) if chronicle else ())
    if (ledger := read_ledger(run)) is not None:
        yield _section("Questions", run_sections.questions(run, ledger))
    yield _section("Data", run_sections.data(run.data) if run.data else ())
    yield _section("Configuration", run_sections.configuration(run))
    yield _section("Rollouts", _browser(run, budget))


def _section(title: str, *parts: Iterable[str]) -> Section:
    return Section(title, "".join(chain(*parts)))


def read_ledger(run: RunFiles) -> Ledger | None:
    """Of the newest checkpoint; None if there is none."""
    file = run.newest_checkpoint / "ledger.json" if run.newest_checkpoint else None
    if file is None or not file.is_file():
        return None
    return Ledger.of(json.loads(file.read_text(encoding="utf-8")))


def _figures(run: RunFiles, drawn: Iterable[Picture]) -> Iterator[str]:
    """The pictures, saved and shown: the narrow ones beside each other, before the wide ones."""
    with pictures():
        shown = [(picture.wide, _figure(run.folder / FOLDER, picture)) for picture in drawn]
    if narrow := [figure for wide, figure in shown if not wide]:
        yield f'<div class="figures">\n{"".join(narrow)}</div>\n'
    yield from (figure for wide, figure in shown if wide)


def _figure(folder: Path, picture: Picture) -> str:
    file = folder / f"{picture.name}.png"
    picture.figure.savefig(file, dpi=DPI, pil_kwargs={"compress_level": COMPRESSION})
    source = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"
    caption = f"<figcaption>{text(picture.caption)}</figcaption>" if picture.caption else ""
    kind = ' class="wide"' if picture.wide else ""
    return f'<figure{kind}><img src="{source}" alt="{text(one_line(picture.alt))}">{caption}</figure>\n'


def _browser(run: RunFiles, budget: int) -> Iterator[str]:
    """Filters, cards and the rollouts themselves; nothing for a run without any."""
    checkpoint = run.newest_checkpoint
    pieces = Pieces.of(checkpoint / "model" / "tokenizer.json") if checkpoint else None
    packed = pack(run.rollouts(), pieces, budget)
    if packed.total == 0:
        return
    yield f"<p>{text(said_of(packed))}</p>\n"
    yield from run_sections.counts(packed.counts)
    yield asset("browser.html")
    for name, blob in packed.blobs.items():
        yield f'<script type="application/gzip" id="{name}">{blob}</script>\n'
    yield f"<script>\n{asset('browser.js')}</script>\n"


def said_of(packed: Packed) -> str:
    """How much of the run the page holds."""
    if packed.carried == packed.total:
        held = f"All {packed.total:,} rollouts of the run are in this page."
    else:
        held = (
            f"{packed.carried:,} of {packed.total:,} rollouts are in this page, which would be too large "
            "with all: a sample of the prompts, drawn by a hash of their number, each with all its answers "
            "in all iterations. Counts and curves are of all rollouts, and rollouts/ has every one."
        )
    if packed.coloured < packed.carried:
        some = f"{packed.coloured:,} of them" if packed.coloured else "None of them"
        held += f" {some} can be coloured by the log-probabilities of their tokens."
    return held


if __name__ == "__main__":
    sys.stdout.write(f"{write_run_report(Path(sys.argv[1]))}\n")
