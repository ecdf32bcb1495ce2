"""Where rows are found: files, folders, the hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from expert_iteration.config import ConfigError, Member
from expert_iteration.data.sources import EVALUATION, TRAIN, has_evaluation_set, open_source
from tests.data import dataset, sums, write

ROOT = Path(__file__).parents[1]


def questions(split: str = TRAIN, **keys) -> list[str]:
    source = open_source(Member("task", "own", dataset(**keys)), split, seed=0)
    return [line.fields["question"] for line in source.lines]


def asked(*numbers: int) -> list[str]:
    return [row["question"] for row in sums(*numbers)]


def test_a_folder_is_searched_for_the_names_of_the_splits(tmp_path):
    path = write(tmp_path, train=sums(1), test=sums(2), train_extra=sums(3))
    assert questions(path=path) == asked(1)
    assert questions(EVALUATION, path=path) == asked(2)
    assert questions(path=path, train="train_extra") == asked(3)
    assert questions(path=path, train="train_extra.jsonl") == asked(3)


def test_the_one_file_whose_name_begins_so_will_do(tmp_path):
    assert questions(path=write(tmp_path, train4500=sums(1), test500=sums(2))) == asked(1)


def test_formats_may_be_mixed(tmp_path):
    path = write(tmp_path, train=sums(1))
    (tmp_path / "test.csv").write_text("question,gold\nTwo?,2\n")
    assert questions(EVALUATION, path=path) == ["Two?"]


def test_numbered_shards_are_one_split_in_order(tmp_path):
    shards = {f"train-0000{n}-of-00003": sums(n) for n in (2, 0, 1)}
    assert questions(path=write(tmp_path, **shards)) == asked(0, 1, 2)


def test_a_file_may_be_named_itself_and_has_no_evaluation_set(tmp_path):
    write(tmp_path, all=sums(1, 2))
    own = dataset(path=str(tmp_path / "all.jsonl"))
    assert questions(path=own.path) == asked(1, 2)
    assert not has_evaluation_set(own)
    assert has_evaluation_set(dataset(path=str(tmp_path)))
    assert not has_evaluation_set(dataset(path=str(tmp_path), evaluation=None))


def test_without_an_evaluation_set_the_only_file_of_a_folder_will_do(tmp_path):
    path = write(tmp_path, input_data=sums(1))
    assert questions(path=path, evaluation=None) == asked(1)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ["other"],
            "has 0 files for task.evaluation (test) among its .jsonl, .csv, .parquet files: other.jsonl",
        ),
        (["test1", "test2"], "has 2 files for task.evaluation (test)"),
        ([], "files: none; name the right one or set task.evaluation=null"),
    ],
)
def test_a_file_that_is_missing_or_not_the_only_one_is_named_with_what_is_there(tmp_path, files, words):
    path = write(tmp_path, **{name: sums(1) for name in files})
    with pytest.raises(ConfigError) as refusal:
        questions(EVALUATION, path=path)
    assert words in str(refusal.value)


def test_the_same_name_in_two_formats_is_not_guessed_at(tmp_path):
    path = write(tmp_path, train=sums(1))
    (tmp_path / "train.csv").touch()
    with pytest.raises(ConfigError, match=r"has 2 files for task\.train \(train\)"):
        questions(path=path)


def test_a_path_that_is_not_there_or_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"task\.path \(/no/such\) does not exist"):
        questions(path="/no/such")
    (tmp_path / "rows.txt").touch()
    with pytest.raises(ConfigError, match=r"0 files for task\.train"):
        questions(path=str(tmp_path / "rows.txt"))


def test_a_dataset_without_path_and_hub_id_is_refused():
    with pytest.raises(ConfigError, match=r"task\.path is null, and so is task\.hub_id"):
        questions()


HUB = """
import json
from expert_iteration.config import DatasetConfig, Member
from expert_iteration.data.sources import open_source
for revision in (None, "0123456789abcdef"):
    dataset = DatasetConfig(name="jsonl", hub_id="hub_set", hub_revision=revision)
    source = open_source(Member("task", "own", dataset), "evaluation", 0)
    print(json.dumps([source.name, source.warning, [line.place for line in source.lines]]))
"""


def offline(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `program` in `folder`, where the library `datasets` keeps its cache too."""
    environment = {"HF_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_splits_of_the_hub_are_read_by_name_and_an_unpinned_one_gives_a_warning(tmp_path):
    # a folder in the place of the hub
    write(tmp_path / "hub_set", train=sums(1, 2), test=sums(3))
    run = offline(HUB, tmp_path)
    unpinned, pinned = (json.loads(line) for line in run.stdout.splitlines())
    assert unpinned[0] == "hub_set@latest[test]"
    assert unpinned[1].startswith("task.hub_revision is null: hub_set may change between runs")
    assert pinned == ["hub_set@01234567[test]", "", ["hub_set[test]:1"]]
    assert not run.stderr


def test_a_dataset_that_the_hub_does_not_give_is_refused_with_a_way_out(tmp_path):
    run = offline(HUB.replace("hub_set", "nobody/nothing"), tmp_path)
    assert "ConfigError: task.hub_id (nobody/nothing, split test) cannot be loaded" in run.stderr
    assert "set task.path" in run.stderr
