"""What the reference model earns, from the first question to the V* that training measures from."""

import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expert_iteration.config import (
    ConfigError,
    ModelConfig,
    RewardConfig,
    RunConfig,
    ValuesConfig,
)
from expert_iteration.data.report import DataReport
from expert_iteration.engine import Request
from expert_iteration.estimation import chunk_size, estimate, value_seed
from expert_iteration.grading import Response
from expert_iteration.prompts import Data, PromptSet, load_data
from expert_iteration.tokenizer import load_tokenizer, resolve_model
from expert_iteration.types import Finish, Outcome, Prompt, Rollout, Verdict
from expert_iteration.values import Samples, opened, optimal_values, settings, with_values
from tests.runs import ROOT, SMALL, train
from tests.test_config import composed

SCRIPT = ROOT / "scripts" / "estimate_values.py"
DEMO = ("task.limit=24", "values.samples=2")


def prompts(count: int) -> PromptSet:
    return PromptSet(
        tuple(Prompt(i, f"q{i}", str(i), f"text {i}", (i,), "r1_zero") for i in range(count)), count, 0
    )


def data(count: int = 10) -> Data:
    return Data(prompts(count), prompts(1), DataReport([]), "hash")


def run_config(file: Path | None, samples: int = 4, **values: Any) -> RunConfig:
    """Chunks of 3 prompts."""
    config = composed("placement=local")
    infer = replace(config.placement.infer, max_num_seqs=samples * 3 // 2)
    return replace(
        config,
        values=ValuesConfig(None if file is None else str(file), samples, **values),
        placement=replace(config.placement, infer=infer),
    )


class FakeEngine:
    """Answers at once, and remembers what was ordered."""

    def __init__(self) -> None:
        self.orders: list[Request] = []

    def submit(self, requests: Sequence[Request]) -> list[Future[tuple[Rollout, ...]]]:
        self.orders += requests
        futures: list[Future[tuple[Rollout, ...]]] = [Future() for _ in requests]
        for future, one in zip(futures, requests, strict=True):
            future.set_result(tuple(Rollout(i, (1,), (0.0,), "", Finish.STOP, 0, 0) for i in range(one.n)))
        return futures


class FakeGrader:
    """Judges by the prompt, whose number is its gold answer."""

    def __init__(self, judge: Callable[[int, int], Outcome] = lambda *_: Outcome.WRONG) -> None:
        self._judge = judge
        self._answers: Counter[int] = Counter()

    def grade(self, responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(self._outcome(int(response.gold)), "") for response in responses]

    def _outcome(self, prompt: int) -> Outcome:
        self._answers[prompt] += 1
        return self._judge(prompt, self._answers[prompt] - 1)


def first_is_correct(prompt: int, answer: int) -> Outcome:
    """Prompt i has i correct answers."""
    return Outcome.CORRECT if answer < prompt else Outcome.WRONG


def some_correct(prompt: int, answer: int) -> Outcome:
    return Outcome.CORRECT if (prompt + answer) % 3 else Outcome.WRONG


def fill(
    config: RunConfig, given_: Data, engine: FakeEngine, grader: FakeGrader, chunks: int = 99
) -> list[int]:
    """One call of the script, which ends after some chunks; the sizes of those that were finished."""
    samples = opened(config, given_)
    sizes = estimate(config, samples, samples.unjudged(given_.train.prompts), engine, grader)
    return list(islice(sizes, chunks))


@given(st.dictionaries(st.integers(0, 99), st.lists(st.floats(0, 1), max_size=4)))
def test_what_was_written_is_read_again(rewards: dict[int, list[float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "values.json"
        samples = Samples({"model.path": "demo", "values.samples": 8}, rewards, set(list(rewards)[:2]))
        samples.write(file)
        assert Samples.read(file) == samples
        assert list(Path(folder).iterdir()) == [file], "no draft is left behind"


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=8),
    st.floats(1e-3, 1e3),
)
def test_a_value_lies_between_the_mean_and_the_best_reward(rewards: list[float], beta: float) -> None:
    value = optimal_values({3: rewards}, beta)[3]
    assert sum(rewards) / len(rewards) - 1e-9 <= value <= max(rewards) + 1e-9


def test_one_success_in_eight_is_worth_what_the_paper_says() -> None:
    assert optimal_values({0: [1.0] + [0.0] * 7}, 0.5)[0] == pytest.approx(0.29351, abs=5e-6)


def test_every_prompt_is_asked_once_and_its_judged_answers_are_written_down(tmp_path: Path) -> None:
    config, engine = run_config(tmp_path / "values.json"), FakeEngine()
    assert chunk_size(config) == 3
    assert fill(config, data(5), engine, FakeGrader(first_is_correct)) == [3, 2]
    assert [order.prompt for order in engine.orders] == [(i,) for i in range(5)]
    assert {(order.n, order.temperature, order.max_tokens) for order in engine.orders} == {(4, 1.0, 48)}
    found = Samples.read(tmp_path / "values.json")
    assert found.rewards == {i: [1.0] * i + [0.0] * (4 - i) for i in range(5)}
    assert found.solved == {1, 2, 3, 4}


def test_rewards_are_shaped_as_in_training(tmp_path: Path) -> None:
    config = replace(run_config(tmp_path / "values.json", 1), reward=RewardConfig(brevity=0.25))
    fill(config, data(2), FakeEngine(), FakeGrader(first_is_correct))
    brevity = 0.25 * 47 / 48
    assert Samples.read(tmp_path / "values.json").rewards == {
        0: [pytest.approx(0.75 * brevity)],
        1: [pytest.approx(0.75 + brevity)],
    }


def test_a_second_call_goes_on_and_ends_with_the_file_of_one_straight_call(tmp_path: Path) -> None:
    split, straight = (run_config(tmp_path / name) for name in ("split.json", "straight.json"))
    some = FakeGrader(some_correct)
    first, second = FakeEngine(), FakeEngine()
    assert fill(split, data(), first, some, chunks=2) == [3, 3]
    assert list(Samples.read(tmp_path / "split.json").rewards) == list(range(6))
    assert fill(split, data(), second, some) == [3, 1]
    assert {order.prompt for order in second.orders} == {(i,) for i in range(6, 10)}
    whole = FakeEngine()
    fill(straight, data(), whole, FakeGrader(some_correct))
    assert (tmp_path / "split.json").read_bytes() == (tmp_path / "straight.json").read_bytes()
    seeds = {order.prompt: order.seed for order in whole.orders}
    assert all(seeds[order.prompt] == order.seed for order in first.orders + second.orders)
    assert len(set(seeds.values())) == 10
    assert fill(split, data(), second, some) == [], "nothing is left to ask"


def test_seeds_depend_on_the_run_and_the_prompt_alone() -> None:
    assert value_seed(0, 7) == value_seed(0, 7)
    assert len({value_seed(seed, prompt) for seed in range(30) for prompt in range(30)}) == 900
    assert all(0 <= value_seed(seed, 1) < 2**31 for seed in range(100))


def test_answers_that_were_not_judged_are_left_out_and_such_prompts_are_asked_again(tmp_path: Path) -> None:
    config = run_config(tmp_path / "values.json")

    def abstaining(prompt: int, answer: int) -> Outcome:
        return Outcome.TIMEOUT if prompt == 1 or answer == 0 else Outcome.WRONG

    fill(config, data(3), FakeEngine(), FakeGrader(abstaining))
    assert Samples.read(tmp_path / "values.json").rewards == {0: [0.0] * 3, 1: [], 2: [0.0] * 3}
    with pytest.raises(ConfigError, match=r"lacks 1 of .* \[1\], 1 of them because .*drop_unsolved=true"):
        with_values(config, data(3))
    again = FakeEngine()
    fill(config, data(3), again, FakeGrader(first_is_correct))
    assert [order.prompt for order in again.orders] == [(1,)]
    assert len(with_values(config, data(3)).train) == 3


def test_prompts_that_no_answer_solves_can_be_left_out(tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    kept, dropped = run_config(file), run_config(file, drop_unsolved=True)
    shares = RewardConfig(brevity=0.25)
    kept, dropped = replace(kept, reward=shares), replace(dropped, reward=shares)
    fill(kept, data(4), FakeEngine(), FakeGrader(first_is_correct))
    assert min(Samples.read(file).rewards[0]) > 0, "wrong answers earn something too"
    values = {prompt.id: prompt.value or 0.0 for prompt in with_values(kept, data(4)).train.prompts}
    assert list(values) == [0, 1, 2, 3]
    assert 0 < values[0] < values[1] < values[2] < values[3]
    assert [prompt.id for prompt in with_values(dropped, data(4)).train.prompts] == [1, 2, 3]


def test_unjudged_prompts_count_as_unsolved_where_those_are_left_out(tmp_path: Path) -> None:
    config = run_config(tmp_path / "values.json", drop_unsolved=True)
    outcomes = {0: Outcome.ERROR, 1: Outcome.CORRECT}
    fill(config, data(2), FakeEngine(), FakeGrader(lambda prompt, _: outcomes[prompt]))
    assert [prompt.id for prompt in with_values(config, data(2)).train.prompts] == [1]


def test_leaving_out_every_prompt_is_refused(tmp_path: Path) -> None:
    config = run_config(tmp_path / "values.json", drop_unsolved=True)
    fill(config, data(2), FakeEngine(), FakeGrader())
    with pytest.raises(ConfigError, match="leaves none of 2 prompts"):
        with_values(config, data(2))


def other_prompt(given_: Data) -> Data:
    changed = replace(given_.train.prompts[0], text="What is it?")
    return replace(given_, train=replace(given_.train, prompts=(changed, *given_.train.prompts[1:])))


@pytest.mark.parametrize("key", ["values.samples", "model.path", "sampling.temperature", "training prompts"])
def test_a_file_of_another_run_is_refused_in_one_line(tmp_path: Path, key: str) -> None:
    config, here = run_config(tmp_path / "values.json"), data(3)
    others = {
        "values.samples": (run_config(tmp_path / "values.json", 5), here),
        "model.path": (replace(config, model=ModelConfig("other", max_length=2048)), here),
        "sampling.temperature": (replace(config, sampling=replace(config.sampling, temperature=0.5)), here),
        "training prompts": (config, other_prompt(here)),
    }
    fill(config, here, FakeEngine(), FakeGrader())
    with pytest.raises(ConfigError, match=f"other {key} ") as refusal:
        opened(*others[key])
    assert "\n" not in str(refusal.value)
    if key == "values.samples":
        assert len(with_values(*others[key]).train) == 3, "training takes any number of samples"
    else:
        with pytest.raises(ConfigError, match=f"other {key} "):
            with_values(*others[key])


def test_values_serve_every_seed_and_every_evaluation_set(tmp_path: Path) -> None:
    config, here = run_config(tmp_path / "values.json"), data(3)
    fill(config, here, FakeEngine(), FakeGrader())
    assert opened(replace(config, seed=5), replace(here, held_out=prompts(7), hash="other")).rewards


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "does not exist"),
        ("{", "holds no values"),
        ("[]", "holds no values"),
        ("{}", "KeyError"),
    ],
)
def test_a_file_without_values_is_refused_with_the_command_that_makes_it(
    tmp_path: Path, text: str | None, words: str
) -> None:
    file = tmp_path / "values.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=words) as refusal:
        with_values(run_config(file), data(1))
    assert "`python scripts/estimate_values.py`" in str(refusal.value)


def test_several_samples_at_temperature_0_are_refused(tmp_path: Path) -> None:
    config = run_config(tmp_path / "values.json")
    config = replace(config, sampling=replace(config.sampling, temperature=0.0))
    with pytest.raises(ConfigError, match=r"values\.samples \(4\)"):
        fill(config, data(1), FakeEngine(), FakeGrader())


def test_an_engine_that_goes_silent_is_said(tmp_path: Path) -> None:
    class Silent(FakeEngine):
        def submit(self, requests: Sequence[Request]) -> list[Future[tuple[Rollout, ...]]]:
            return [Future() for _ in requests]

    config = replace(run_config(tmp_path / "values.json"), wait_limit=0.01)
    with pytest.raises(TimeoutError, match="wait_limit"):
        fill(config, data(1), Silent(), FakeGrader())


@pytest.fixture(scope="module")
def demo() -> tuple[RunConfig, Data]:
    config = composed("algorithm=a_star_po", *DEMO)
    return config, load_data(config, load_tokenizer(resolve_model(config).model))


def at(config: RunConfig, file: Path) -> RunConfig:
    return replace(config, values=replace(config.values, path=str(file)))


def test_training_refuses_without_values_and_with_some_of_them(
    tmp_path: Path, demo: tuple[RunConfig, Data]
) -> None:
    config, questions = demo
    with pytest.raises(ConfigError, match=r"values\.path is null.*scripts/estimate_values\.py"):
        with_values(config, questions)
    config = at(config, tmp_path / "values.json")
    half = questions.train.prompts[:12]
    Samples(settings(config, questions.train), {prompt.id: [0.0] for prompt in half}).write(
        tmp_path / "values.json"
    )
    with pytest.raises(ConfigError, match=r"lacks 12 of .*scripts/estimate_values\.py") as refusal:
        with_values(config, questions)
    assert "drop_unsolved" not in str(refusal.value)


# --- the script ---


def begun(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *overrides, f"hydra.run.dir={folder}"],
        # a shell starts its background jobs with SIGINT ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def call(folder: Path, *overrides: str) -> tuple[int, str]:
    """Exit code and output of one call."""
    process = begun(folder, *overrides)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def test_the_script_without_a_file_says_so_in_one_line(tmp_path: Path) -> None:
    code, output = call(tmp_path, *DEMO)
    assert code == 2
    assert output.startswith("error: values.path is null") and output.count("\n") == 1


@pytest.mark.long
@pytest.mark.real
def test_values_are_estimated_and_trained_from(tmp_path: Path) -> None:
    overrides = ("algorithm=a_star_po", "placement=local", *DEMO, f"values.path={tmp_path / 'values.json'}")
    code, output = call(tmp_path / "values", *overrides)
    assert code == 0, output
    assert "24/24 prompts" in output and "finished" in output
    assert (tmp_path / "values" / "logs" / "values.log").is_file()
    written = (tmp_path / "values.json").read_bytes()
    assert {len(rewards) for rewards in json.loads(written)["rewards"].values()} == {2}
    run = train(tmp_path / "run", *overrides, *SMALL, "iterations=1")
    assert run.code == 0, run.output[-3000:]
    assert run.survivors == []
    assert run.summary["totals"]["kept"] == run.summary["totals"]["rollouts"] == 96
    assert run.values("loss/total")
    assert (tmp_path / "values.json").read_bytes() == written
