"""scripts/ledger.py: what a run knows of each prompt, for people."""

import csv
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from expert_iteration.archive import LEDGER
from expert_iteration.ledger import Ledger, Record

SCRIPT = Path(__file__).parents[1] / "scripts" / "ledger.py"
RECORDS = {
    1: Record(visits=2, attempts=8, last_seen=2),
    2: Record(visits=1, attempts=4, last_seen=2),
    3: Record(2, 8, 4, kept=4, first_solved=2, last_solved=2, last_seen=2, last_rate=1.0),
    4: Record(2, 8, 1, first_solved=1, last_solved=1, last_seen=2, last_rate=0.0),
    5: Record(visits=1, abstentions=4, last_seen=1),
}


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def write_run(folder: Path) -> Path:
    """A run with an older checkpoint, the newest one, and one that was never finished."""
    for name, records, whole in (("05", {}, True), ("10", RECORDS, True), ("15", {}, False)):
        checkpoint = folder / "checkpoints" / f"step_000000{name}"
        checkpoint.mkdir(parents=True)
        (checkpoint / LEDGER).write_text(json.dumps(Ledger(records).state()))
        if whole:
            (checkpoint / "manifest.json").write_text("{}")
    rows = [
        {"prompt_id": i, "task": "demo", "level": "easy", "question": f"Question [bold]{i}[/]\x1b[2J?"}
        for i in (1, 2, 3, 4, 3)
    ]
    (folder / "rollouts").mkdir()
    (folder / "rollouts" / "iteration_0001.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"prompt_id": 9, "qu'
    )
    return folder


def sections(output: str) -> dict[str, list[int]]:
    """Title of each table -> its prompt ids, in order."""
    found: dict[str, list[int]] = {}
    title = ""
    for line in output.splitlines():
        words = line.split()
        if " in all)" in line:
            title = line.partition(" (")[0]
            found[title] = []
        elif title and words and words[0].isdecimal():
            found[title].append(int(words[0]))
    return found


def test_prompts_come_in_the_order_of_how_remarkable_they_are(
    tmp_path: Path, script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    script["main"]([str(write_run(tmp_path))])
    output = capsys.readouterr().out
    assert sections(output) == {
        "hardest first": [1, 2, 4, 3],
        "newly solved first": [3, 4],
        "forgotten": [4],
    }
    assert "5 visited up to iteration 2" in output
    assert "2, 1 of them first in iteration 2" in output
    assert "28 judged, 5 correct (17.9%), 4 abstained" in output


def test_questions_are_shown_as_text_that_can_do_no_harm(
    tmp_path: Path, script: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    script["main"]([str(write_run(tmp_path))])
    output = capsys.readouterr().out
    assert "Question [bold]1[/]\\x1b[2J?" in output and "\x1b" not in output


def test_top_cuts_every_table(
    tmp_path: Path, script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    script["main"]([str(write_run(tmp_path)), "--top", "1"])
    output = capsys.readouterr().out
    assert sections(output) == {"hardest first": [1], "newly solved first": [3], "forgotten": [4]}
    assert "hardest first (4 in all)" in output


def test_the_csv_has_every_prompt_with_all_that_is_known(tmp_path: Path, script: dict[str, Any]) -> None:
    file = tmp_path / "prompts.csv"
    script["main"]([str(write_run(tmp_path / "run")), "--csv", str(file)])
    with file.open(newline="", encoding="utf-8") as lines:
        rows = {int(row["prompt_id"]): row for row in csv.DictReader(lines)}
    assert list(rows) == [1, 2, 3, 4, 5]
    assert rows[3]["question"] == "Question [bold]3[/]\x1b[2J?"
    assert (rows[3]["pass_rate"], rows[3]["kept"], rows[1]["first_solved"]) == ("0.5", "4", "")
    assert (rows[5]["question"], rows[5]["abstentions"]) == ("", "4"), "it has no rollout any more"


def test_a_run_whose_rollouts_are_gone_is_shown_without_questions(
    tmp_path: Path, script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path)
    (run / "rollouts" / "iteration_0001.jsonl").unlink()
    script["main"]([str(run)])
    assert sections(capsys.readouterr().out)["forgotten"] == [4]


@pytest.mark.parametrize("text", [None, "{", "{}x", '[{"prompt_id": 1, "colour": "red"}]', '[{"visits": 1}]'])
def test_a_folder_that_is_no_run_is_refused_in_one_line(
    tmp_path: Path, script: dict[str, Any], capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    if text is not None:
        write_run(tmp_path)
        (tmp_path / "checkpoints" / "step_00000010" / LEDGER).write_text(text)
    with pytest.raises(SystemExit) as stop:
        script["main"]([str(tmp_path)])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and str(tmp_path) in said


def test_the_ledger_is_looked_for_where_the_archive_writes_it(script: dict[str, Any]) -> None:
    assert script["LEDGER"] == LEDGER


def test_the_script_starts_without_torch() -> None:
    code = f"import runpy, sys; runpy.run_path({str(SCRIPT)!r}); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
