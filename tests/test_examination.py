"""A whole evaluation in its folder, with an engine that is none."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from expert_iteration.collector import response_of
from expert_iteration.config import ConfigError
from expert_iteration.evaluation import evaluate
from expert_iteration.examination.predictions import FILE, Prediction, read_predictions
from expert_iteration.reporting.jsonl import read_rows
from expert_iteration.sampling import request
from tests.examinations import (
    QUESTIONS,
    FakeEngine,
    FakeGrader,
    Killed,
    ask,
    config_of,
    examination,
    examined,
)

ANSWERS = len(QUESTIONS) * (1 + 2 * 2 * 4)


def test_every_question_is_asked_once_in_each_round_and_every_answer_has_a_line(tmp_path: Path) -> None:
    engine = FakeEngine()
    one = examination(tmp_path)
    assert sum(ask(one, engine)) == len(engine.orders) == ANSWERS
    assert {order.n for order in engine.orders} == {1}
    assert len({(order.prompt, order.temperature, order.seed) for order in engine.orders}) == ANSWERS
    assert [order.temperature for order in engine.orders].count(0) == len(QUESTIONS)
    rows = read_rows(tmp_path / FILE)
    assert len(rows) == len(read_predictions(tmp_path)) == ANSWERS
    assert set(rows[0]) == set(Prediction.__dataclass_fields__)


def test_the_engine_is_never_given_more_than_two_batches_at_a_time(tmp_path: Path) -> None:
    class Counting(FakeEngine):
        longest = 0

        def submit(self, requests):
            self.longest = max(self.longest, len(requests))
            return super().submit(requests)

    engine = Counting()
    ask(examination(tmp_path, config_of(batch=3)), engine)
    assert engine.longest == 6


@pytest.mark.parametrize("lives", [0, 1, 7, 50, ANSWERS - 1])
def test_a_killed_evaluation_goes_on_and_ends_with_the_very_same_file(tmp_path: Path, lives: int) -> None:
    examined(tmp_path / "straight")
    killed = tmp_path / "killed"
    with pytest.raises(Killed):
        examined(killed, lives=lives)
    with (killed / FILE).open("a") as file:
        file.write('{"prompt_id": 3, "ta')
    written = len(read_predictions(killed))
    engine = FakeEngine()
    one = examination(killed, config_of(resume=killed, batch=5))
    ask(one, engine)
    one.assess()
    assert len(engine.orders) == ANSWERS - written
    assert len(read_rows(killed / FILE)) == ANSWERS
    straight = (tmp_path / "straight" / "evaluation.json").read_bytes()
    assert (killed / "evaluation.json").read_bytes() == straight


def test_an_evaluation_that_is_finished_asks_nothing_more(tmp_path: Path) -> None:
    examined(tmp_path)
    assert examination(tmp_path, config_of(resume=tmp_path)).unanswered() == []


def test_an_evaluation_that_goes_on_may_ask_for_more(tmp_path: Path) -> None:
    examined(tmp_path, config_of(samples=1, ks=None, seeds=[0]))
    engine = FakeEngine()
    more = examination(tmp_path, config_of(resume=tmp_path))
    ask(more, engine)
    assert len(engine.orders) == ANSWERS - 3 * len(QUESTIONS)
    assert more.assess() == examined(tmp_path / "at_once")


def test_an_evaluation_goes_on_only_as_it_began(tmp_path: Path) -> None:
    examined(tmp_path)
    resumed = config_of(resume=tmp_path)
    with pytest.raises(ConfigError, match="model sha256 'c0ffee' -> 'decaf'; bring back"):
        examination(tmp_path, resumed, **{"model sha256": "decaf"})
    with pytest.raises(ConfigError, match="questions 6 -> 5, prompts sha256"):
        examination(tmp_path, resumed, QUESTIONS[:5])
    longer = replace(resumed, sampling=replace(resumed.sampling, max_tokens=49))
    with pytest.raises(ConfigError, match=r"sampling\.max_tokens 48 -> 49"):
        examination(tmp_path, longer)
    examination(tmp_path, resumed, **{"model.path": "the/same/elsewhere"})


def test_a_folder_that_holds_an_evaluation_is_not_written_over(tmp_path: Path) -> None:
    examined(tmp_path)
    with pytest.raises(ConfigError, match="holds an evaluation already; go on with it by resume="):
        examination(tmp_path)


def test_a_folder_without_an_evaluation_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no evaluation"):
        examination(tmp_path, config_of(resume=tmp_path))


def test_predictions_that_are_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"text": "hello"}\n')
    with pytest.raises(ConfigError, match="holds no predictions"):
        read_predictions(tmp_path)


def test_metrics_are_those_of_an_evaluation_inside_training(tmp_path: Path) -> None:
    config, engine, grader = config_of(), FakeEngine(), FakeGrader()

    async def answer(prompts, temperature, seed):
        orders = [request(config, one, one.token_ids, 1, temperature, seed + one.id) for one in prompts]
        rollouts = [future.result()[0] for future in engine.submit(orders)]
        asked = zip(prompts, rollouts, strict=True)
        return list(zip(rollouts, grader.grade([response_of(*one) for one in asked]), strict=True))

    inside = asyncio.run(evaluate(answer, QUESTIONS, config))
    assert examined(tmp_path)["metrics"] == inside
    assert json.loads((tmp_path / "evaluation.json").read_text())["metrics"] == inside
