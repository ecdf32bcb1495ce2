"""scripts/prepare_data.py: checked JSONL splits that `task=jsonl` reads."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from expert_iteration.data.loading import read_task
from tests.data import SHARED, run_config, sums, write
from tests.test_config import composed

SCRIPT = Path(__file__).parents[1] / "scripts" / "prepare_data.py"


def prepare(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def gsm8k(tmp_path) -> str:
    """40 training rows, two of them bad, and 5 to evaluate."""
    good = [{"question": f"{n} é?", "answer": f"Count.\n#### {n}"} for n in range(45)]
    return write(tmp_path / "raw", train=[*good[:38], {}, good[0]], test=good[40:])


def test_a_dataset_keeps_its_splits_and_loses_its_bad_rows(tmp_path, gsm8k):
    output = tmp_path / "out"
    run = prepare("gsm8k", "--path", gsm8k, "--output", str(output))
    assert (run.returncode, run.stderr) == (0, "")
    assert "gsm8k train 38 of 40 rows, 2 dropped; gsm8k evaluation 5 of 5 rows" in run.stdout
    assert rows(output / "train.jsonl")[3] == {"question": "3 é?", "gold": "3", "reasoning": "Count."}
    assert len(rows(output / "evaluation.jsonl")) == 5
    (train, _) = json.loads((output / "data_report.json").read_text())["parts"]
    assert train["dropped"]["fields"]["rows"] == [
        f"{gsm8k}/train.jsonl:39: field 'answer' is missing; there are []"
    ]


def test_what_it_writes_is_read_as_it_was(tmp_path, gsm8k):
    assert prepare("gsm8k", "--path", gsm8k, "--output", str(tmp_path / "out")).returncode == 0
    before = read_task(composed("task=gsm8k", f"task.path={gsm8k}"))
    after = read_task(composed("task=jsonl", f"task.path={tmp_path}/out", "data.on_bad_row=fail"))

    def content(parts):
        return [
            [replace(example, number=0, place="") for example in part.examples]
            for part in (*parts.train, *parts.evaluation)
        ]

    assert content(before) == content(after)


def test_a_split_parts_the_training_rows_by_question_whatever_their_order(tmp_path):
    forward = write(tmp_path / "a", train=sums(*range(200)), test=sums(500))
    backward = write(tmp_path / "b", train=sums(*range(199, -1, -1)), test=sums(500))
    written = []
    for number, (path, seed) in enumerate([(forward, "0"), (backward, "0"), (forward, "1")]):
        output = tmp_path / f"out{number}"
        split = ("--split", "train=0.8,dev=0.1,evaluation=0.1", "--seed", seed)
        assert prepare("jsonl", "--path", path, "--output", str(output), *split).returncode == 0
        written.append({name: rows(output / f"{name}.jsonl") for name in ("train", "dev", "evaluation")})
    first, reversed_, reseeded = written
    assert sum(len(part) for part in first.values()) == 200
    assert all(0 < len(first[name]) < 60 for name in ("dev", "evaluation"))
    assert {name: part[::-1] for name, part in reversed_.items()} == first
    assert reseeded["dev"] != first["dev"]


def test_the_same_arguments_write_the_same_bytes(tmp_path):
    outputs = [tmp_path / "one", tmp_path / "two"]
    for output in outputs:
        assert prepare("demo", "--output", str(output), "--limit", "30", "--seed", "3").returncode == 0
    for name in ("train.jsonl", "evaluation.jsonl", "data_report.json"):
        assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()
    assert len(rows(outputs[0] / "evaluation.jsonl")) == 30


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "Could not find 'task/nope'"),
        (["jsonl"], "task.path is null"),
        (["gsm8k", "--path", "/no/such"], "task.path (/no/such) does not exist"),
        (["demo", "--split", "train=0.9,train=0.1"], "names must differ"),
        (["demo", "--split", "train"], "is not like train=0.9,evaluation=0.1"),
        (["demo", "--limit", "0"], "0 is no whole number above 0"),
        (["gsm8k_math", "--path", "."], "task.path is not read in a mixture"),
    ],
)
def test_what_cannot_work_is_said_in_few_words(tmp_path, arguments, words):
    run = prepare(*arguments, "--output", str(tmp_path / "out"))
    assert run.returncode == 2
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


def test_the_rows_are_not_overwritten(gsm8k):
    run = prepare("gsm8k", "--path", gsm8k, "--output", gsm8k)
    assert run.returncode == 2
    assert "is the folder that the rows come from" in run.stderr


def test_bad_rows_stop_it_on_request(tmp_path, gsm8k):
    run = prepare("gsm8k", "--path", gsm8k, "--output", str(tmp_path / "out"), "data.on_bad_row=fail")
    assert run.returncode == 2
    assert "of the rows 2 cannot be used" in run.stderr


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published datasets are not at hand")
@pytest.mark.parametrize("task", ["gsm8k", "math", "ifeval"])
def test_published_datasets_are_prepared(tmp_path, task):
    arguments = ("--path", str(SHARED / task), "--output", str(tmp_path / "out"))
    run = prepare(task, *arguments, "--split", "train=0.9,evaluation=0.1", "--limit", "50")
    assert (run.returncode, run.stderr) == (0, "")
    style = "ifeval" if task == "ifeval" else "boxed"
    parts = read_task(run_config(path=str(tmp_path / "out"), evaluation="evaluation", style=style))
    assert sum(len(part.examples) for part in (*parts.train, *parts.evaluation)) == 50
