"""Rates of judged answers."""

import asyncio
from dataclasses import replace

import pytest

from expert_iteration.config import EvalConfig, RunConfig, SamplingConfig
from expert_iteration.evaluation import evaluate
from expert_iteration.rounds import sampled_rounds
from expert_iteration.types import Finish, Outcome, Prompt, Rollout, Verdict

PROMPTS = [
    Prompt(i, f"q{i}", "1", f"q{i}", (1,), "boxed", level="easy" if i < 2 else "hard") for i in range(4)
]


def judged(outcome, finish=Finish.STOP, **values):
    values = {"format_reward": float(outcome is not Outcome.UNPARSABLE)} | values
    return Rollout(0, (5, 6), (0.0, 0.0), "", finish, 0, 0), Verdict(outcome, "", **values)


def run_config(temperature=1.0, **asked):
    return RunConfig(sampling=SamplingConfig(temperature), eval=EvalConfig(**asked))


def evaluated(prompts, greedy):
    """Metrics when both rounds of answers are judged alike."""

    async def answer(*_):
        return greedy

    return asyncio.run(evaluate(answer, prompts, run_config()))


def prompt(number, **values):
    return Prompt(number, f"q{number}", "1", f"q{number}", (1,), "boxed", **values)


def test_rates_are_shares_of_all_questions_and_broken_down_by_level():
    calls = []

    async def answer(_, temperature, seed):
        calls.append((temperature, seed))
        if temperature == 0:
            return [
                judged(Outcome.CORRECT),
                judged(Outcome.WRONG),
                judged(Outcome.CORRECT),
                judged(Outcome.UNPARSABLE, Finish.LENGTH),
            ]
        return [judged(Outcome.CORRECT), *[judged(Outcome.TIMEOUT)] * 3]

    metrics = asyncio.run(evaluate(answer, PROMPTS, run_config(temperature=0.7)))
    assert calls == [(0.0, 0), (0.7, 0)]
    assert metrics["eval/n"] == 4
    assert metrics["eval/greedy"] == 0.5
    assert metrics["eval/pass@1"] == 0.25
    assert metrics["eval/format"] == 0.75
    assert metrics["eval/abstained"] == 3 / 8
    assert metrics["eval/truncated"] == 0.25
    assert metrics["eval/length"] == 2
    assert metrics["eval/greedy/easy"] == 0.5
    assert metrics["eval/greedy/hard"] == 0.5
    assert metrics["eval/n/hard"] == 2


def test_by_default_a_question_is_asked_twice_and_the_names_of_metrics_are_few():
    metrics = evaluated([prompt(0)], [judged(Outcome.CORRECT)])
    assert set(metrics) == {
        *("eval/n", "eval/greedy", "eval/pass@1", "eval/format"),
        *("eval/abstained", "eval/truncated", "eval/length"),
    }


def test_more_samples_and_temperatures_give_more_measures():
    async def answer(prompts, temperature, seed):
        right = seed % 2 == 0 and temperature < 1
        said = rf"\boxed{{{1 if right else 2}}}"
        rollout, verdict = judged(Outcome.CORRECT if right else Outcome.WRONG)
        return [(replace(rollout, text=said), verdict) for _ in prompts]

    asked = run_config(samples=4, ks=[2, 4], temperatures=[0.5, 1.0])
    metrics = asyncio.run(evaluate(answer, [prompt(0)], asked))
    right = sum(each.engine_seed % 2 == 0 for each in sampled_rounds(asked, 0.5))
    assert right == 2, "as it takes for the numbers below"
    assert metrics["eval/pass@1"] == metrics["eval/avg@4"] == 0.5
    assert metrics["eval/pass@2"] == pytest.approx(5 / 6)
    assert (metrics["eval/pass@4"], metrics["eval/maj@4"]) == (1, 0.5)
    assert metrics["eval/pass@4/temperature_1"] == 0
    assert "eval/maj@2" not in metrics, "of two answers that differ none has a majority"


def test_answers_that_are_judged_as_a_whole_are_not_voted_on():
    asked = run_config(samples=3)

    async def answer(*_):
        return [judged(Outcome.CORRECT)]

    instructed = replace(prompt(0), style="ifeval")
    metrics = asyncio.run(evaluate(answer, [instructed], asked))
    assert "eval/pass@3" in metrics
    assert "eval/maj@3" not in metrics


def test_format_and_accuracy_are_separate_numbers():
    right_without_format = judged(Outcome.CORRECT, format_reward=0.0)
    wrong_with_format = judged(Outcome.WRONG, format_reward=1.0)
    metrics = evaluated(
        PROMPTS, [right_without_format, right_without_format, right_without_format, wrong_with_format]
    )
    assert (metrics["eval/greedy"], metrics["eval/format"]) == (0.75, 0.25)


def test_a_mixture_is_broken_down_by_task_subject_and_level():
    prompts = [
        prompt(0, task="math", level="level_3", subject="Counting & Probability"),
        prompt(1, task="math", level="level_3", subject="Algebra"),
        prompt(2, task="math", level="level_10", subject="algebra"),
        prompt(3, task="gsm8k"),
    ]
    right, wrong = judged(Outcome.CORRECT), judged(Outcome.WRONG)
    metrics = evaluated(prompts, [right, wrong, right, wrong])
    parts = {
        key.removeprefix("eval/n/"): value for key, value in metrics.items() if key.startswith("eval/n/")
    }
    assert parts == {
        "level_3": 2,
        "level_10": 1,
        "subject_counting_probability": 1,
        "subject_algebra": 2,
        "task_math": 3,
        "task_gsm8k": 1,
    }
    assert {part: metrics[f"eval/greedy/{part}"] for part in parts} == {
        "level_3": 0.5,
        "level_10": 1,
        "subject_counting_probability": 1,
        "subject_algebra": 0.5,
        "task_math": pytest.approx(2 / 3),
        "task_gsm8k": 0,
    }


def test_one_task_without_levels_has_no_breakdown_and_no_instructions():
    metrics = evaluated([prompt(0, task="gsm8k")], [judged(Outcome.CORRECT)])
    assert not any(key.count("/") > 1 or "strict" in key for key in metrics)


def test_instructions_and_prompts_have_strict_and_loose_accuracies():
    def followed(outcome, asked, strict, loose):
        return judged(outcome, counts={"instructions": asked, "strict": strict, "loose": loose})

    answers = [
        followed(Outcome.CORRECT, 3, 3, 3),
        followed(Outcome.WRONG, 2, 1, 2),
        followed(Outcome.WRONG, 1, 0, 0),
        judged(Outcome.ERROR),
    ]
    metrics = evaluated([prompt(i, task="ifeval") for i in range(4)], answers)
    assert metrics["eval/instruction_strict"] == 4 / 6
    assert metrics["eval/instruction_loose"] == 5 / 6
    assert metrics["eval/prompt_strict"] == pytest.approx(1 / 3)
    assert metrics["eval/prompt_loose"] == pytest.approx(2 / 3)
    assert (metrics["eval/n/instruction"], metrics["eval/n/prompt"]) == (6, 3)
    assert metrics["eval/greedy"] == 0.25, "an answer that could not be judged is not solved"
