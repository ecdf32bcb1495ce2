"""Spans of one process, as a reader finds them."""

import time

import pytest

from expert_iteration.reporting.jsonl import read_rows
from expert_iteration.timeline import Timeline


def test_spans_are_rows_in_the_order_in_which_they_ended(tmp_path):
    timeline = Timeline(tmp_path, "collector 0")
    before = time.time()
    with timeline.span("collect", 3), timeline.span("grade"):
        pass
    with pytest.raises(ZeroDivisionError), timeline.span("store"):
        _ = 1 / 0
    rows = read_rows(tmp_path / "timeline" / "collector_0.jsonl")
    assert [(row["stage"], row["iteration"]) for row in rows] == [
        ("grade", None),
        ("collect", 3),
        ("store", None),
    ]
    assert all(before - 0.01 < row["start"] <= row["end"] < time.time() + 0.01 for row in rows)


def test_the_sessions_of_a_run_follow_each_other(tmp_path):
    for second in (1.0, 2.0):
        Timeline(tmp_path, "driver").add("learn", 1, second, second + 0.5)
    rows = read_rows(tmp_path / "timeline" / "driver.jsonl")
    assert [row["start"] for row in rows] == [1.0, 2.0]


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Timeline().span("learn"):
        pass
    assert list(tmp_path.iterdir()) == []
