"""Evaluations of a few questions with an engine that is none."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from expert_iteration.config import EvalConfig, RunConfig
from expert_iteration.engine import Request
from expert_iteration.examination.whole import Examination, settings_of
from expert_iteration.grading import Response
from expert_iteration.types import Finish, Outcome, Prompt, Rollout, Verdict
from tests.test_config import composed

QUESTIONS = tuple(
    Prompt(i, f"{i}+1?", str(i + 1), f"{i}+1?", (i,), "boxed", "sums", level=f"level_{1 + i % 2}")
    for i in range(6)
)


class Killed(Exception):
    """The process is no more."""


class FakeEngine:
    """Answers at once, each question by its temperature and seed alone; dies after some answers."""

    def __init__(self, lives: int = 10**6, shift: int = 0) -> None:
        self.orders: list[Request] = []
        self._lives = lives
        self._shift = shift

    def submit(self, requests: Sequence[Request]) -> list[Future[tuple[Rollout, ...]]]:
        self.orders += requests
        return [self._answer(one) for one in requests]

    def _answer(self, order: Request) -> Future[tuple[Rollout, ...]]:
        future: Future[tuple[Rollout, ...]] = Future()
        self._lives -= 1
        if self._lives < 0:
            future.set_exception(Killed())
            return future
        (number,) = order.prompt
        noise = Random(f"{number}/{order.temperature}/{order.seed if order.temperature else 0}").randrange(3)
        said = number + 1 + (noise if order.temperature else number % 2) + self._shift
        text = f"it is {said}" if noise == 2 and order.temperature else rf"so \boxed{{{said}}}"
        tokens = tuple(range(5 + noise))
        future.set_result((Rollout(0, tokens, (0.0,) * len(tokens), text, Finish.STOP, 0, 0),))
        return future


class FakeGrader:
    """Compares text with text."""

    def grade(self, responses: Sequence[Response]) -> list[Verdict]:
        return [self._verdict(response) for response in responses]

    def _verdict(self, response: Response) -> Verdict:
        if "boxed" not in response.text:
            return Verdict(Outcome.UNPARSABLE, "no box")
        right = response.text.endswith(f"{{{response.gold}}}")
        return Verdict(Outcome.CORRECT if right else Outcome.WRONG, "exact", 1.0)


def config_of(resume: Path | None = None, batch: int = 2, **asked: Any) -> RunConfig:
    """An engine that takes `batch` answers at a time."""
    config = composed("placement=local")
    infer = replace(config.placement.infer, max_num_seqs=batch)
    keys: dict[str, Any] = {"samples": 4, "ks": [1, 2, 4], "temperatures": [0.6, 1.0], "seeds": [0, 1]}
    return replace(
        config,
        resume=None if resume is None else str(resume),
        eval=EvalConfig(**keys | asked),
        placement=replace(config.placement, infer=infer),
    )


def examination(
    folder: Path, config: RunConfig | None = None, prompts: Sequence[Prompt] = QUESTIONS, **settings: Any
) -> Examination:
    folder.mkdir(exist_ok=True)
    config = config or config_of()
    return Examination.of(config, folder, prompts, settings_of(config, prompts, "c0ffee", "2") | settings)


def ask(one: Examination, engine: FakeEngine) -> list[int]:
    """How many answers came at a time."""
    return list(one.ask(one.unanswered(), engine, FakeGrader()))


def examined(folder: Path, config: RunConfig | None = None, **engine: Any) -> dict[str, Any]:
    """What evaluation.json holds in the end."""
    one = examination(folder, config)
    ask(one, FakeEngine(**engine))
    return one.assess()
