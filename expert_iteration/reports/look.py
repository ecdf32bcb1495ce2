"""One look for every picture and page: plain, publishable, and told apart by colour-blind readers."""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any

import matplotlib

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that colour-blind readers can tell apart (Okabe and Ito 2008)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SEQUENTIAL = "cividis"
"""Colour map of heat maps: even in lightness, the same for all readers."""

PICTURES: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}


ASSETS = Path(__file__).parent / "assets"


@contextmanager
def pictures() -> Iterator[None]:
    """Within it, matplotlib draws in our style."""
    with matplotlib.rc_context(PICTURES):
        yield


def page(title: str, body: str, style: str = "") -> str:
    """A whole page that loads nothing from anywhere.

    Args:
        title: plain text.
        body: HTML, in which every foreign text went through `text`.
        style: more rules of the page's own.
    """
    parts = {"title": text(title), "style": asset("page.css") + style, "body": body}
    return Template(asset("page.html")).substitute(parts)


def asset(name: str) -> str:
    """A file of ours that goes into pages: a style sheet, a script or a skeleton."""
    return (ASSETS / name).read_text(encoding="utf-8")


def text(foreign: object) -> str:
    """Any text as HTML that shows it and does nothing."""
    return html.escape(str(foreign), quote=True)
