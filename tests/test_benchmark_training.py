"""The benchmark of the learner holds it against a loop that learns the same."""

import re
import sys

import pytest

from scripts.benchmark import training


def test_both_sides_take_the_same_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["training.py", "--rows=3", "--steps=2", "--rounds=1"])
    training.main()  # it compares the losses of both
    assert re.search(r"learner / hand-written: \d+\.\d+", capsys.readouterr().out)
