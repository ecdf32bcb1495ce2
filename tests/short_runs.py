"""A run of a few lines as the reporter sees it, with text that wants to be more than text."""

import io
import logging
import math
from collections import Counter
from pathlib import Path

from expert_iteration.choices import WandbMode
from expert_iteration.config import LoggerConfig, RunConfig
from expert_iteration.reporting import Reporter
from expert_iteration.types import Finish, Group, Outcome, Prompt, Rollout, Ticket, Verdict

HOSTILE = "\x1b[2J\x9b31m[bold red]ok[/]\n{}\r\u202e\u2028\x7f\x00 :smile: \udc80"


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_config(wandb: WandbMode = WandbMode.disabled, iterations: int = 4) -> RunConfig:
    return RunConfig(iterations=iterations, logger=LoggerConfig(wandb=wandb, name="one", group="all"))


def make_group() -> Group:
    prompt = Prompt(
        id=7,
        question=HOSTILE,
        gold="4",
        text="2+2?",
        token_ids=(1, 2),
        style="boxed",
        task="math",
        level="level_1",
        subject="algebra",
    )
    rollouts = tuple(
        Rollout(index, (5,) * (index + 1), (-0.1,) * (index + 1), f"{HOSTILE}{index}", Finish.STOP, 3, 4)
        for index in range(3)
    )
    verdicts = (
        Verdict(Outcome.CORRECT, "exact", 1.0),
        Verdict(Outcome.WRONG, "differs", 0.5, partial=0.25),
        Verdict(Outcome.TIMEOUT, "5 s"),
    )
    return Group(Ticket(group_id=11, iteration=2, prompt=prompt), rollouts, verdicts, (0.9, 0.3, 0.0))


def short_run(run_dir: Path, stream: io.TextIOBase, clock: Clock, config: RunConfig | None = None) -> None:
    """Four iterations of ten seconds; accuracy goes from 25% to 65%."""
    with Reporter(config or make_config(), run_dir, stream, clock) as reporter:
        reporter.start()
        for iteration in range(5):
            with reporter.phase("collect", total=16, iteration=iteration):
                clock.now += 10.0
                reporter.advance("collect", 16, {"rollout/tokens_per_second": 1834.0})
            logging.getLogger("expert_iteration.engine").warning("bad answer: %s", HOSTILE)
            share = 0.25 + 0.1 * iteration
            metrics = {
                "eval/greedy": share,
                "eval/n": 300,
                "eval/greedy/level_1": share,
                "loss/total": math.nan,
            }
            reporter.log(metrics, iteration, step=iteration * 8)
            reporter.end_iteration(iteration)
        reporter.finish("finished", Counter(rollouts=64, correct=32, kept=16, abstained=1))
