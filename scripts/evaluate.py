"""Evaluate a model: ``python scripts/evaluate.py [task=...] [model.path=...] [eval.samples=8 ...]``.

`model.path` is a folder such as RUN/checkpoints/step_00000162/model, or a hub id. Held-out questions are
answered greedily and at each of eval.temperatures; the folder of the evaluation gets predictions.jsonl, and
evaluation.json in the end. ``resume=FOLDER`` goes on with one that was stopped.

Every answer has a seed of its own: its company in the batch decides rounding alone, and that only where
vLLM's kernels depend on the size of the batch, as in bfloat16 for large models;
`model.engine_dtype=float32` makes it small. ``--against FOLDER`` is short for ``eval.against=FOLDER``: the
differences from another evaluation of the same questions.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

sys.path.insert(0, str(Path(__file__).parents[1]))

from expert_iteration.config import RunConfig
from expert_iteration.launch import command
from expert_iteration.reporting.progress import Progress
from expert_iteration.sessions import provenance_of, sole_owner, termination_as_exit
from expert_iteration.sweeps.retries import quoted

if TYPE_CHECKING:
    from expert_iteration.examination.whole import Examination

EXIT_INTERRUPTED = 130


def main() -> None:
    sys.argv[1:] = with_keys(sys.argv[1:])
    command(run)


def with_keys(arguments: Sequence[str]) -> list[str]:
    """`--against FOLDER` as the override that it stands for."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--against", type=Path, metavar="FOLDER")
    found, others = options.parse_known_args(arguments)
    return others if found.against is None else [*others, f"eval.against={quoted(found.against)}"]


def run(config: RunConfig, run_dir: Path) -> None:
    """Bring the evaluation in `run_dir` to its end.

    Raises:
        ConfigError: the configuration cannot work, or the folder belongs to another evaluation.
        SystemExit: interrupted; predictions.jsonl keeps what was finished.
    """
    from expert_iteration.output import captured_output
    from expert_iteration.reporting.scores import print_scores

    with (
        termination_as_exit(),
        sole_owner(config, run_dir),
        captured_output(run_dir, "evaluation") as terminal,
    ):
        examination = prepared(config, run_dir, terminal)
        try:
            ask(examination, terminal)
        except KeyboardInterrupt:
            left = f"{len(examination.unanswered()):,} answers"
            terminal.write(f"\ninterrupted: {left} are left; resume={run_dir} goes on.\n")
            raise SystemExit(EXIT_INTERRUPTED) from None
        print_scores(examination.assess(), terminal)
        terminal.write(f"\n{run_dir}/evaluation.json  predictions.jsonl\n")


def prepared(config: RunConfig, run_dir: Path, terminal: TextIO) -> "Examination":
    """The evaluation with its questions; no model is loaded."""
    from expert_iteration.examination.whole import Examination, settings_of
    from expert_iteration.prompts import load_data
    from expert_iteration.reporting.jsonl import write_json
    from expert_iteration.tokenizer import load_tokenizer, resolve_model

    data = load_data(config, load_tokenizer(resolve_model(config).model))
    basis, prompts = provenance_of(config, data.hash), data.held_out.prompts
    settings = settings_of(config, prompts, basis.model_hash, basis.grader_version)
    examination = Examination.of(config, run_dir, prompts, settings)
    write_json(run_dir / "data_report.json", data.report.as_json() | {"hash": data.hash})
    terminal.write(f"{config.model.path}: {len(prompts):,} of {data.held_out.rows:,} questions\n")
    return examination


def ask(examination: "Examination", terminal: TextIO) -> None:
    """Have what is unanswered answered, and show how far that is."""
    orders = examination.unanswered()
    if not orders:
        return

    from expert_iteration.engine import Engine
    from expert_iteration.grading import Grader
    from expert_iteration.tokenizer import resolve_model

    terminal.write(f"{len(orders):,} answers to sample; the model is loading\n")
    config = examination.config
    model = resolve_model(config).model
    with (
        closing(Engine(model, config.placement, config.seed, config.wait_limit)) as engine,
        Grader(config.grading) as grader,
    ):
        progress = Progress(len(orders), "answers", terminal)
        for count in examination.ask(orders, engine, grader):
            progress.advance(count)
        progress.end()


if __name__ == "__main__":
    main()
