"""Rates of judged answers."""

import asyncio

from expert_iteration.evaluation import evaluate
from expert_iteration.types import Finish, Outcome, Prompt, Rollout, Verdict

PROMPTS = [Prompt(i, f"q{i}", "1", f"q{i}", (1,), level="easy" if i < 2 else "hard") for i in range(4)]


def judged(outcome, finish=Finish.STOP):
    verdict = Verdict(outcome, "", format_reward=float(outcome is not Outcome.UNPARSABLE))
    return Rollout(0, (5, 6), (0.0, 0.0), "", finish, 0, 0), verdict


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

    metrics = asyncio.run(evaluate(answer, PROMPTS, temperature=0.7, seed=11))
    assert calls == [(0.0, 11), (0.7, 11)]
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
