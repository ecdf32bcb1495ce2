"""scripts/evaluate.py: a model, its answers and their measures in one folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from expert_iteration.examination.predictions import FILE
from expert_iteration.reporting.jsonl import read_rows
from scripts.evaluate import with_keys
from tests.runs import ROOT

SCRIPT = ROOT / "scripts" / "evaluate.py"


def evaluate(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "placement=local", f"hydra.run.dir={folder}", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)


def test_what_cannot_work_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    ended = evaluate(tmp_path / "run", "eval.samples=4", "eval.ks=[1,8]")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: eval.ks (8) exceeds eval.samples (4)")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "run" / FILE).exists()


@pytest.mark.parametrize("name", ["base", "it's = a, name"])
def test_another_evaluation_is_named_by_an_option_too(name: str) -> None:
    for words in (["--against", name], [f"--against={name}"]):
        [first, last] = with_keys(["eval.samples=4", *words])
        assert first == "eval.samples=4"
        parsed = OverridesParser.create().parse_override(last)
        assert (parsed.key_or_group, parsed.value()) == ("eval.against", name)


@pytest.mark.long
@pytest.mark.real
def test_the_batch_size_changes_no_answer(tmp_path: Path) -> None:
    written = {}
    for batch in (1, 32):
        folder = tmp_path / str(batch)
        ended = evaluate(folder, "eval.limit=40", f"placement.infer.max_num_seqs={batch}")
        assert ended.returncode == 0, ended.stderr
        assert "format and answer right" in ended.stdout
        assert len(read_rows(folder / FILE)) == 80
        written[batch] = sorted(
            read_rows(folder / FILE), key=lambda row: (row["prompt_id"], row["temperature"])
        )
    assert written[1] == written[32]
    one, other = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("1", "32"))
    assert one == other
