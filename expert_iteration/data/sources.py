"""Where the rows of a split stand: a file, a folder of files, the hub, or the generator of the demo."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from expert_iteration.config import ConfigError, DatasetConfig, Member
from expert_iteration.data.files import FORMATS, Line, first_line, quiet_datasets, read_file
from expert_iteration.demo import problems

DEMO_TRAINING_SET = 8192
TRAIN, EVALUATION = "train", "evaluation"


@dataclass(frozen=True)
class Source:
    """The rows of one split, not read yet."""

    name: str
    lines: Iterator[Line]
    """Can be gone through once."""
    warning: str = ""


def has_evaluation_set(dataset: DatasetConfig) -> bool:
    """Whether evaluation questions have a source of their own, or are held out of the training rows."""
    one_file = dataset.path is not None and _folder(dataset).is_file()
    return dataset.name == "demo" or (dataset.evaluation is not None and not one_file)


def open_source(member: Member, split: str, seed: int) -> Source:
    """The source of `TRAIN` or `EVALUATION`; `seed` decides what the demo generates.

    Raises:
        ConfigError: there is no such file, or the hub does not give the dataset.
    """
    dataset = member.dataset
    if dataset.name == "demo":
        return Source(f"demo[{split}]", _demo_lines(dataset, split, seed))
    name = dataset.train if split == TRAIN else dataset.evaluation
    assert name is not None, "has_evaluation_set is asked first"
    if dataset.path is not None:
        files = _find_files(member, name, split)
        where = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        return Source(where, chain.from_iterable(read_file(file) for file in files))
    return _open_hub(member, name)


def _demo_lines(dataset: DatasetConfig, split: str, seed: int) -> Iterator[Line]:
    if split == TRAIN:
        drawn = problems.train(dataset.limit or DEMO_TRAINING_SET, seed)
    else:
        drawn = problems.held_out()
    for number, problem in enumerate(drawn, start=1):
        row = {
            "question": problem.question,
            "gold": problem.answer,
            "reasoning": "; ".join(problem.steps),
            "level": f"{problem.difficulty}_steps",
        }
        yield Line(f"demo[{split}]:{number}", row)


def _folder(dataset: DatasetConfig) -> Path:
    assert dataset.path is not None
    return Path(dataset.path).expanduser()


def _find_files(member: Member, name: str, split: str) -> list[Path]:
    """The file called `name`, its numbered shards, or the one file whose name starts so.

    So train4500.jsonl is the `train` of a folder without a train.jsonl, and the files that the hub calls
    train-00000-of-00002.parquet are read as one. Without an evaluation set a folder's only file will do.
    """
    path = _folder(member.dataset)
    if not path.exists():
        raise ConfigError(f"{member.key}.path ({path}) does not exist; name a folder or a file.")
    files = [path] if path.is_file() else sorted(path.iterdir())
    readable = [file for file in files if file.suffix in FORMATS]
    if path.is_file() and readable:
        return readable
    exact = [file for file in readable if name in (file.name, file.stem)]
    shards = [file for file in readable if re.fullmatch(re.escape(name) + r"-\d+-of-\d+", file.stem)]
    if shards and not exact:
        return shards
    found = exact or [file for file in readable if file.name.startswith(name)]
    if not found and member.dataset.evaluation is None:
        found = readable
    if len(found) == 1:
        return found
    there = ", ".join(file.name for file in readable) or "none"
    remedy = " or set task.evaluation=null" if split == EVALUATION else ""
    raise ConfigError(
        f"{member.key}.path ({path}) has {len(found)} files for {member.key}.{split} ({name}) among its "
        f"{', '.join(FORMATS)} files: {there}; name the right one{remedy}."
    )


def _open_hub(member: Member, split: str) -> Source:
    key, _, dataset = member
    if dataset.hub_id is None:
        raise ConfigError(f"{key}.path is null, and so is {key}.hub_id; say where the rows of {key} are.")
    library = quiet_datasets()
    try:
        rows = library.load_dataset(
            dataset.hub_id, dataset.hub_config, split=split, revision=dataset.hub_revision
        )
    except (OSError, ValueError, library.exceptions.DatasetsError) as error:
        raise ConfigError(
            f"{key}.hub_id ({dataset.hub_id}, split {split}) cannot be loaded: {first_line(error)}; "
            f"check the network and the names, or download the files and set {key}.path."
        ) from error
    warning = (
        ""
        if dataset.hub_revision
        else f"{key}.hub_revision is null: {dataset.hub_id} may change between runs; pin a commit."
    )
    name = f"{dataset.hub_id}@{(dataset.hub_revision or 'latest')[:8]}[{split}]"
    lines = (Line(f"{dataset.hub_id}[{split}]:{number}", row) for number, row in enumerate(rows, start=1))
    return Source(name, lines, warning)
