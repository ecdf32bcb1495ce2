"""What evaluation.json holds, and how two evaluations are compared."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from expert_iteration.config import ConfigError
from expert_iteration.examination.predictions import FILE
from expert_iteration.examination.rival import paired
from expert_iteration.reporting.jsonl import read_rows
from expert_iteration.reporting.scores import print_scores
from expert_iteration.reporting.statistics import wilson
from tests.examinations import QUESTIONS, FakeEngine, FakeGrader, config_of, examination, examined


def compared(tmp_path: Path, **engine: int) -> dict:
    """What an evaluation says against one with another engine."""
    examined(tmp_path / "other", **engine)
    return examined(tmp_path / "this", config_of(against=str(tmp_path / "other")))["against"]


def test_single_answers_have_wilson_intervals_and_several_have_those_of_a_bootstrap(tmp_path: Path) -> None:
    result = examined(tmp_path)
    low, high = wilson(0.5, 6)
    assert result["greedy"]["greedy"] == {"value": 0.5, "low": low, "high": high}
    sampled = result["sampled"][0]
    assert (sampled["temperature"], sampled["answers_per_question"]) == (0.6, 8)
    accuracy = sampled["measures"]["pass@1"]
    assert 0 <= accuracy["low"] < accuracy["value"] < accuracy["high"] <= 1
    assert accuracy == sampled["measures"]["avg@8"]
    assert set(sampled["measures"]) == {
        *("pass@1", "pass@2", "pass@4", "avg@8", "maj@4"),
        *("format", "truncated", "abstained", "length"),
    }
    lengths = result["greedy"]["length"]
    assert lengths["low"] <= lengths["value"] <= lengths["high"]


def test_parts_are_measured_like_the_whole(tmp_path: Path) -> None:
    result = examined(tmp_path)
    assert set(result["parts"]) == {"level_1", "level_2"}
    easy, hard = result["parts"]["level_1"], result["parts"]["level_2"]
    assert (easy["questions"], easy["greedy"]["greedy"]["value"]) == (3, 1)
    assert (hard["questions"], hard["greedy"]["greedy"]["value"]) == (3, 0)
    halves = [part["sampled"][1]["measures"]["pass@4"]["value"] for part in (easy, hard)]
    assert sum(halves) / 2 == pytest.approx(result["sampled"][1]["measures"]["pass@4"]["value"])


def test_each_seed_is_measured_alone_and_their_mean_is_that_of_all(tmp_path: Path) -> None:
    result = examined(tmp_path)
    assert [(one["temperature"], one["seed"]) for one in result["by_seed"]] == [
        (0.6, 0),
        (0.6, 1),
        (1.0, 0),
        (1.0, 1),
    ]
    first, second = (one["measures"]["pass@1"] for one in result["by_seed"][:2])
    assert first != second
    assert (first + second) / 2 == pytest.approx(result["sampled"][0]["measures"]["pass@1"]["value"])


def test_categories_count_every_answer_once_and_show_some(tmp_path: Path) -> None:
    result = examined(tmp_path)
    greedy, cool, _ = result["categories"]
    counts = {name: kind["count"] for name, kind in greedy["kinds"].items()}
    assert counts == {
        "format_1_answer_1": 3,
        "format_1_answer_0": 3,
        "format_0_answer_0": 0,
        "format_0_answer_1": 0,
        "not_judged": 0,
    }
    assert sum(kind["count"] for kind in cool["kinds"].values()) == 6 * 8
    assert sum(kind["share"] for kind in cool["kinds"].values()) == pytest.approx(1)
    kind = cool["kinds"]["format_0_answer_0"]
    assert kind["count"] == sum(
        row["outcome"] == "unparsable" for row in read_rows(tmp_path / FILE) if row["temperature"] == 0.6
    )
    assert len(kind["examples"]) == 3
    assert all("boxed" not in example["text"] for example in kind["examples"])


def test_the_difference_of_two_evaluations_is_that_of_their_measures(tmp_path: Path) -> None:
    against = compared(tmp_path, shift=1)
    greedy, cool, _ = against["temperatures"]
    other = json.loads((tmp_path / "other" / "evaluation.json").read_text())
    this = json.loads((tmp_path / "this" / "evaluation.json").read_text())
    accuracy = cool["measures"]["maj@4"]
    assert accuracy["here"] == this["metrics"]["eval/maj@4"]
    assert accuracy["there"] == other["metrics"]["eval/maj@4"]
    assert accuracy["difference"] == pytest.approx(accuracy["here"] - accuracy["there"])
    assert accuracy["low"] <= accuracy["difference"] <= accuracy["high"]
    assert greedy["questions"] == 6
    assert (greedy["measures"]["pass@1"]["higher_here"], greedy["measures"]["pass@1"]["higher_there"]) == (
        3,
        0,
    )


def test_an_evaluation_does_not_differ_from_itself(tmp_path: Path) -> None:
    for group in compared(tmp_path)["temperatures"]:
        for one in group["measures"].values():
            assert (one["difference"], one["low"], one["high"]) == (0, 0, 0)


def test_what_both_find_hard_does_not_widen_a_paired_interval() -> None:
    easy_or_hard = [0.0, 1.0] * 50
    better = [min(1.0, value + 0.1) for value in easy_or_hard]
    found = paired(better, easy_or_hard)
    assert found["high"] - found["low"] < 0.03
    assert (found["higher_here"], found["higher_there"]) == (50, 0)


def test_only_questions_that_both_have_answered_are_compared(tmp_path: Path) -> None:
    other = examination(tmp_path / "other", config_of())
    # four questions, and of the fifth the greedy answer and some at temperature 0.6
    list(other.ask(other.unanswered()[: 4 * 17 + 3], FakeEngine(), FakeGrader()))
    this = examined(tmp_path / "this", config_of(against=str(tmp_path / "other")))
    questions = {one["temperature"]: one["questions"] for one in this["against"]["temperatures"]}
    assert questions == {0.0: 5, 0.6: 4, 1.0: 4}


def test_other_questions_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    examined(tmp_path / "other")
    config = config_of(against=str(tmp_path / "other"))
    changed = (replace(QUESTIONS[0], gold="7"), *QUESTIONS[1:5])
    with pytest.raises(ConfigError, match="other questions: 2 of 6 differ; evaluate both with the same task"):
        examination(tmp_path / "this", config, changed)
    assert not (tmp_path / "this" / FILE).exists()


def test_a_finished_evaluation_of_fewer_questions_is_another_one(tmp_path: Path) -> None:
    few = examination(tmp_path / "other", prompts=QUESTIONS[:5])
    list(few.ask(few.unanswered(), FakeEngine(), FakeGrader()))
    few.assess()
    with pytest.raises(ConfigError, match="other questions: 1 of 6 differ"):
        examination(tmp_path / "this", config_of(against=str(tmp_path / "other")))


def test_a_folder_without_predictions_cannot_be_compared_with(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"eval\.against .* holds no predictions\.jsonl"):
        examination(tmp_path / "this", config_of(against=str(tmp_path)))


def test_the_terminal_shows_the_measures_the_kinds_of_answers_and_the_difference(tmp_path: Path) -> None:
    compared(tmp_path, shift=1)
    shown = io.StringIO()
    print_scores(json.loads((tmp_path / "this" / "evaluation.json").read_text()), shown)
    lines = shown.getvalue().splitlines()

    def line(start: str) -> str:
        return next(line for line in lines if line.startswith(start))

    assert "temperature 0.6 x 8" in line("6 questions")
    assert "50.0% [18.8,  81.2]" in line("accuracy")
    assert " to " in line("accuracy of each seed")
    assert "-" in line("pass@4").split()
    assert "3 (50.0%)" in line("format and answer right")
    assert any("such as" not in text and r"so \boxed{1}" in text for text in lines), "an example"
    assert "3 / 0" in line("accuracy, greedy")
    assert all(text == text.rstrip() for text in lines)


def test_an_example_cannot_move_the_cursor(tmp_path: Path) -> None:
    result = examined(tmp_path)
    kinds = result["categories"][0]["kinds"]["format_1_answer_1"]
    kinds["examples"][0]["text"] = "\x1b[2Jgone [bold]\r\nsecond line"
    shown = io.StringIO()
    print_scores(result, shown)
    assert "\x1b" not in shown.getvalue()
    assert r"\x1b[2Jgone [bold]" in shown.getvalue()
    assert "second line" not in shown.getvalue()
