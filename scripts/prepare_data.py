"""Check a dataset and write it as JSONL splits: ``python scripts/prepare_data.py gsm8k --output data/gsm8k``.

The rows that can be used go into one file per split, to be read by ``task=jsonl task.path=FOLDER``; the
others are listed in data_report.json. The same arguments and rows give the same bytes.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from expert_iteration.checks import from_hydra
from expert_iteration.config import ConfigError, RunConfig, members_of
from expert_iteration.data.loading import Part, parted, read_part, read_task, refuse_bad_rows
from expert_iteration.data.readers import Example
from expert_iteration.data.report import DataReport, PartReport
from expert_iteration.data.sources import TRAIN
from expert_iteration.grading import Grader
from expert_iteration.launch import EXIT_CONFIGURATION, config_folder, register
from expert_iteration.reporting.jsonl import write_json

FIELDS = ("id", "question", "gold", "reasoning", "level", "subject")


def main() -> None:
    arguments = parse()
    try:
        refuse_overwriting(arguments.output, arguments.path)
        parts = read(configured(arguments), arguments.split, arguments.seed)
    except (ConfigError, HydraException) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(EXIT_CONFIGURATION) from None
    arguments.output.mkdir(parents=True, exist_ok=True)
    for split in dict.fromkeys(part.split for part in parts):
        rows = [example for part in parts if part.split == split for example in part.examples]
        write(arguments.output / f"{split}.jsonl", rows[: arguments.limit])
        print(f"{arguments.output / split}.jsonl: {len(rows[: arguments.limit]):,} rows")
    report = DataReport([PartReport(part, len(part.examples)) for part in parts])
    write_json(arguments.output / "data_report.json", report.as_json())
    print(report.line)
    for warning in filter(None, (part.warning for part in parts)):
        print(f"warning: {warning}")


def parse() -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=details)
    parser.add_argument("task", help="an option of config/task, such as gsm8k, math, ifeval or jsonl")
    parser.add_argument("overrides", nargs="*", help="such as task.fields.gold=answer data.on_bad_row=fail")
    parser.add_argument("--path", help="file or folder of the rows; without it, the hub")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--limit", type=positive, help="use the first rows of each split only")
    parser.add_argument(
        "--split",
        type=shares,
        help="divide the training rows, such as train=0.9,evaluation=0.1, by a hash of the question; the "
        "dataset's own evaluation set is left alone. Without it, the dataset's own splits are written",
    )
    parser.add_argument("--seed", type=int, default=0, help="of --split, and of the questions of the demo")
    return parser.parse_intermixed_args()


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def shares(text: str) -> dict[str, float]:
    try:
        pairs = [part.split("=") for part in text.split(",")]
        found = {name: float(share) for name, share in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not like train=0.9,evaluation=0.1") from None
    if len(found) < len(pairs) or not all(share > 0 and name.isidentifier() for name, share in found.items()):
        raise argparse.ArgumentTypeError(f"{text}: names must differ and be words, shares must be above 0")
    return found


def configured(arguments: argparse.Namespace) -> RunConfig:
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        composed = compose("train", overrides=[f"task={arguments.task}", *arguments.overrides])
    given = {"task.path": arguments.path, "task.limit": arguments.limit, "seed": arguments.seed}
    for key, value in given.items():
        if value is not None:
            OmegaConf.update(composed, key, value)
    return from_hydra(composed)


def read(config: RunConfig, split: Mapping[str, float] | None, seed: int) -> Sequence[Part]:
    """The parts to write, training first."""
    if split is None:
        parts = read_task(config)
        return (*parts.train, *parts.evaluation)
    with Grader(config.grading) as grader:
        whole = [read_part(member, TRAIN, config.seed, grader) for member in members_of(config.task)]
    refuse_bad_rows(config.data, whole)
    return [part for one in whole for part in parted(one, split, seed).values()]


def refuse_overwriting(output: Path, path: str | None) -> None:
    source = None if path is None else Path(path).resolve()
    if source is not None and output.resolve() in (source, source.parent):
        raise ConfigError(f"--output ({output}) is the folder that the rows come from; name another one.")


def write(file: Path, examples: Sequence[Example]) -> None:
    with file.open("w", encoding="utf-8") as lines:
        for example in examples:
            row = {name: value for name in FIELDS if (value := getattr(example, name))}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
