"""Whether two nodes see one run folder: the driver leaves a mark in it, which the others read."""

import os
import secrets
from pathlib import Path

MARK = ".mark"
"""File of a run folder."""


def leave_mark(run_dir: Path) -> str:
    """Write a random word into the run folder, and return it."""
    word = secrets.token_hex(8)
    run_dir.mkdir(parents=True, exist_ok=True)
    temporary = run_dir / f"{MARK}-{word}"
    # a link in its place would have another file written
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(word)
    temporary.replace(run_dir / MARK)
    return word


def read_mark(run_dir: Path) -> str | None:
    """What the driver wrote; None: this is another folder, or none."""
    try:
        return (run_dir / MARK).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
