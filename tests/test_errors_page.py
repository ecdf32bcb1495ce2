"""ERRORS.md has a row for every error that a user can meet, and none for others."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MET_BY_USERS = {
    *("ConfigError", "SaveFailed", "DamagedCheckpoint", "Diverged", "WorkerStartError"),
    *("TimeoutError", "RuntimeError", "Mismatch", "DamagedWeights", "NoRun", "NoSweep"),
}
LISTED = ("learning.py", "placing.py", "serving.py", "settings.py")
"""Modules that list problems, which `check` raises."""


def text_of(node: ast.expr) -> str | None:
    """A message as it stands in the code; `...` for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
    return None


def messages_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            name = getattr(node.exc.func, "id", "")
            text = text_of(node.exc.args[0]) if name in MET_BY_USERS else None
            if text is not None and text.strip(".: "):  # others hand on what a library says
                yield text
        elif file.name in LISTED and isinstance(node, ast.Call) and ast.unparse(node.func).endswith("append"):
            yield from filter(None, [text_of(node.args[0])])


MESSAGES = sorted({text for file in (ROOT / "expert_iteration").rglob("*.py") for text in messages_of(file)})
ROWS = re.findall(r"^\| `([^`]+)` \|", (ROOT / "ERRORS.md").read_text(encoding="utf-8"), re.MULTILINE)


def says(row: str, message: str) -> bool:
    """Whether the parts of a row stand in a message, in this order."""
    return re.search(".*".join(map(re.escape, row.split("..."))), message, re.DOTALL) is not None


@pytest.mark.parametrize("message", MESSAGES)
def test_every_error_has_a_row(message: str) -> None:
    assert any(says(row, message) for row in ROWS), f"ERRORS.md has no row for: {message}"


def test_every_row_is_something_that_the_code_says() -> None:
    code = "\n".join(
        text
        for file in (ROOT / "expert_iteration").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.expr) and (text := text_of(node)) is not None
    )
    assert [row for row in ROWS if not any(says(row, line) for line in code.split("\n"))] == []
    assert len(ROWS) == len(set(ROWS)) > 70
