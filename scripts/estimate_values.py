"""Estimate the values of A*-PO: ``python scripts/estimate_values.py [overrides] values.path=values.json``.

The initial model answers every training prompt `values.samples` times; what the answers earn goes into the
file, which a training run with the same overrides reads. A second call goes on where the first one stopped.
"""

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

sys.path.insert(0, str(Path(__file__).parents[1]))

from expert_iteration.config import RunConfig
from expert_iteration.launch import command
from expert_iteration.reporting.progress import Progress
from expert_iteration.sessions import termination_as_exit

if TYPE_CHECKING:
    from expert_iteration.types import Prompt
    from expert_iteration.values import Samples

EXIT_INTERRUPTED = 130


def main() -> None:
    command(run)


def run(config: RunConfig, run_dir: Path) -> None:
    """Bring values.path up to date.

    Raises:
        ConfigError: values.path is null or belongs to another run, or the configuration cannot work.
        SystemExit: interrupted; the file keeps what was finished.
    """
    from expert_iteration.output import captured_output
    from expert_iteration.prompts import load_data
    from expert_iteration.tokenizer import load_tokenizer, resolve_model
    from expert_iteration.values import opened, path_of

    path_of(config)
    with termination_as_exit(), captured_output(run_dir, "values") as terminal:
        data = load_data(config, load_tokenizer(resolve_model(config).model))
        samples = opened(config, data)
        prompts = data.train.prompts
        try:
            ask(config, samples, samples.unjudged(prompts), terminal)
        except KeyboardInterrupt:
            left = f"{len(samples.unjudged(prompts)):,} of {len(prompts):,} prompts"
            terminal.write(f"\ninterrupted: {left} are left; the same command goes on.\n")
            raise SystemExit(EXIT_INTERRUPTED) from None
        terminal.write(summary(config, samples, prompts))


def ask(config: RunConfig, samples: "Samples", prompts: "Sequence[Prompt]", terminal: TextIO) -> None:
    """Have `prompts` answered and judged, and show how far that is."""
    if not prompts:
        return
    from expert_iteration.engine import Engine
    from expert_iteration.estimation import estimate
    from expert_iteration.grading import Grader
    from expert_iteration.tokenizer import resolve_model
    from expert_iteration.values import path_of

    stored = resolve_model(config)
    path_of(config).parent.mkdir(parents=True, exist_ok=True)
    terminal.write(f"{len(prompts):,} prompts, {config.values.samples} answers each\n")
    with (
        closing(Engine(stored.model, config.placement, config.seed, config.wait_limit)) as engine,
        Grader(config.grading) as grader,
    ):
        progress = Progress(len(prompts), "prompts", terminal)
        for count in estimate(config, samples, prompts, engine, grader):
            progress.advance(count)
        progress.end()


def summary(config: RunConfig, samples: "Samples", prompts: "Sequence[Prompt]") -> str:
    """What the file says of all prompts, and which of them it still lacks."""
    from expert_iteration.values import optimal_values

    judged = {prompt: rewards for prompt, rewards in samples.rewards.items() if rewards}
    lines = []
    if judged:
        values = optimal_values(judged, config.values.beta)
        earned = [reward for rewards in judged.values() for reward in rewards]
        lines.append(
            f"{config.values.path}: {len(judged):,} of {len(prompts):,} prompts have a value; "
            f"{len(samples.solved):,} are solved, mean reward {sum(earned) / len(earned):.3f}, "
            f"mean V* {sum(values.values()) / len(values):.3f} at values.beta {config.values.beta:g}."
        )
    if without := [prompt.id for prompt in samples.unjudged(prompts)]:
        lines.append(
            f"warning: no answer to {len(without):,} prompts, such as {without[:3]}, could be judged; raise "
            "grading.deadline and call again, or train with values.drop_unsolved=true."
        )
    else:
        lines.append("finished: every training prompt has a value.")
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
