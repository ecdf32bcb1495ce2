"""A whole task: both splits of each member, no question in both, and a report of what became of the rows."""

import json
import logging

import pytest

from expert_iteration.choices import OnBadRow
from expert_iteration.config import ConfigError
from expert_iteration.data.loading import Parts, read_task
from expert_iteration.data.report import DataReport, PartReport
from expert_iteration.demo.problems import HELD_OUT_SIZE
from tests.data import SHARED, dataset, run_config, sums, write
from tests.test_config import composed

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the published datasets are not at hand")


def numbers(parts) -> list[list[int]]:
    return [[example.number for example in part.examples] for part in parts]


def report_of(parts: Parts) -> DataReport:
    return DataReport([PartReport(part, len(part.examples)) for part in (*parts.train, *parts.evaluation)])


def test_both_splits_are_read(tmp_path):
    parts = read_task(run_config(path=write(tmp_path, train=sums(*range(5)), test=sums(7, 8))))
    assert (numbers(parts.train), numbers(parts.evaluation)) == ([[0, 1, 2, 3, 4]], [[0, 1]])


def test_a_training_question_that_is_also_asked_in_the_evaluation_is_refused_with_both_places(tmp_path):
    path = write(tmp_path, train=sums(1, 2, 3), test=[{"question": "what is  2 and 1", "gold": "3"}])
    with pytest.raises(ConfigError) as refusal:
        read_task(run_config(path=path))
    assert "the evaluation asks 1 of the training questions" in str(refusal.value)
    assert f"{path}/train.jsonl:2 is {path}/test.jsonl:1" in str(refusal.value)


def test_leaks_are_found_across_the_members_of_a_mixture_and_beyond_the_first_few_counted(tmp_path):
    one = dataset(path=write(tmp_path / "one", train=sums(*range(9)), test=sums(100)))
    other = dataset(path=write(tmp_path / "other", train=sums(200), test=sums(*range(8))))
    with pytest.raises(ConfigError, match=r"asks 8 of .*one/train.jsonl:1 is .*other/test.* 3 more"):
        read_task(run_config(members={"one": one, "other": other}))


def test_a_share_of_the_training_rows_is_held_out_when_there_is_no_evaluation_set(tmp_path):
    path = write(tmp_path, train=sums(*range(1000)))
    parts = read_task(run_config(path=path, evaluation=None, held_out=0.2))
    (train,), (held_out,) = numbers(parts.train), numbers(parts.evaluation)
    assert sorted(train + held_out) == list(range(1000))
    assert 150 < len(held_out) < 250
    assert parts.evaluation[0].source == f"20% of {path}/train.jsonl"
    assert (parts.train[0].rows, parts.evaluation[0].rows) == (len(train), len(held_out))


def test_what_is_held_out_does_not_depend_on_the_seed_the_limit_or_the_order(tmp_path):
    def held_out(**task) -> set[str]:
        config = run_config(evaluation=None, **task)
        config.seed = task.get("limit") or 0
        return {example.question for part in read_task(config).evaluation for example in part.examples}

    rows = sums(*range(300))
    forward, backward = write(tmp_path / "a", train=rows), write(tmp_path / "b", train=rows[::-1])
    assert held_out(path=forward) == held_out(path=backward)
    assert held_out(path=forward, limit=100) < held_out(path=forward)
    assert held_out(path=f"{forward}/train.jsonl") == held_out(path=forward)


def test_bad_rows_are_dropped_and_listed_or_refused_as_the_user_wishes(tmp_path):
    path = write(tmp_path, train=[*sums(1), {"question": "q"}, *sums(1)], test=[*sums(5), {}])
    parts = read_task(run_config(path=path))
    assert (len(parts.train[0].dropped), len(parts.evaluation[0].dropped)) == (2, 1)
    with pytest.raises(ConfigError) as refusal:
        read_task(run_config(OnBadRow.fail, path=path))
    message = str(refusal.value)
    assert "of the rows 3 cannot be used" in message
    assert f"{path}/train.jsonl:2: field 'gold' is missing" in message
    assert "data.on_bad_row=drop" in message
    assert "\n" not in message


def test_the_report_counts_and_lists_what_was_dropped(tmp_path):
    path = write(tmp_path, train=[*sums(1), {"question": "q"}, {}, *sums(1)], test=sums(5))
    report = report_of(read_task(run_config(path=path))).as_json()
    train, evaluation = json.loads(json.dumps(report))["parts"]
    assert (train["rows"], train["kept"], train["source"]) == (4, 1, f"{path}/train.jsonl")
    assert {reason: found["count"] for reason, found in train["dropped"].items()} == {
        "fields": 2,
        "same_question": 1,
    }
    assert train["dropped"]["same_question"]["rows"] == [
        f"{path}/train.jsonl:4: the question of {path}/train.jsonl:1 again"
    ]
    assert (evaluation["kept"], evaluation["dropped"]) == (1, {})


def test_the_report_lists_a_hundred_rows_of_each_reason_and_counts_all(tmp_path):
    path = write(tmp_path, train=[*sums(1), *[{}] * 150], test=sums(5))
    dropped = report_of(read_task(run_config(path=path))).as_json()["parts"][0]["dropped"]["fields"]
    assert (dropped["count"], len(dropped["rows"])) == (150, 100)


def test_golds_that_only_spelling_meets_are_noted(tmp_path):
    rows = [*sums(1), {"question": "When?", "gold": "2^{3^{4^5}}"}]
    report = report_of(read_task(run_config(path=write(tmp_path, train=rows, test=sums(5))))).as_json()
    (note,) = report["parts"][0]["notes"]
    assert note == "golds in a form that is compared by its spelling alone, not by its value: 1"
    assert report["parts"][1]["notes"] == []


def test_the_announcement_is_one_line_and_a_warning_when_rows_were_dropped(tmp_path, caplog):
    path = write(tmp_path, train=[*sums(1), {}], test=sums(5))
    with caplog.at_level(logging.INFO):
        report_of(read_task(run_config(path=path))).announce()
        report_of(read_task(run_config(path=path, limit=1))).announce()
    dropped, clean = caplog.records
    assert dropped.levelname == "WARNING"
    assert dropped.getMessage().startswith(
        "data: jsonl train 1 of 2 rows, 1 dropped; jsonl evaluation 1 of 1"
    )
    assert "data_report.json" in dropped.getMessage()
    assert (clean.levelname, clean.getMessage()) == (
        "INFO",
        "data: jsonl train 1 of 1 rows; jsonl evaluation 1 of 1 rows",
    )


def test_a_limit_bounds_the_training_rows_of_each_member(tmp_path):
    path = write(tmp_path / "one", train=sums(*range(20)), test=sums(100))
    other = write(tmp_path / "other", train=sums(*range(20, 40)), test=sums(101))
    members = {"one": dataset(path=path, limit=3), "other": dataset(path=other)}
    assert [len(part.examples) for part in read_task(run_config(members=members)).train] == [3, 20]


def test_the_demo_is_generated_checked_and_leaves_nothing_out():
    parts = read_task(run_config(name="demo", limit=300))
    assert (len(parts.train[0].examples), len(parts.evaluation[0].examples)) == (300, HELD_OUT_SIZE)
    assert not (*parts.train[0].dropped, *parts.evaluation[0].dropped)
    assert parts.train[0].examples[0].level == "1_steps"


def test_a_mixture_keeps_its_members_in_order(tmp_path):
    members = {
        name: dataset(path=write(tmp_path / name, train=sums(first), test=sums(first + 1)))
        for name, first in (("second", 1), ("first", 3))
    }
    parts = read_task(run_config(members=members))
    assert [part.member.name for part in parts.train] == ["second", "first"]
    assert [part.member.name for part in parts.evaluation] == ["second", "first"]


@needs_shared
@pytest.mark.parametrize(
    ("task", "path", "kept"),
    [
        ("gsm8k", SHARED / "gsm8k", [7473, 1319]),
        ("math", SHARED / "math", [4500, 500]),
        ("ifeval", SHARED / "ifeval", [437, 104]),
    ],
)
def test_published_datasets_lose_no_row(task, path, kept):
    config = composed(f"task={task}", f"task.path={path}", "data.on_bad_row=fail")
    parts = read_task(config)
    assert [len(part.examples) for part in (*parts.train, *parts.evaluation)] == kept


@needs_shared
def test_math_500_has_levels_and_subjects():
    parts = read_task(composed("task=math", f"task.path={SHARED / 'math'}", "task.limit=10"))
    examples = parts.evaluation[0].examples
    assert {example.level for example in examples} == {f"level_{n}" for n in range(1, 6)}
    assert len({example.subject for example in examples}) == 7
    assert {example.level for example in parts.train[0].examples} <= {f"level_{n}" for n in range(1, 6)}
