"""What is counted of groups, and the alarm when too little could be judged."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expert_iteration.books import ALARMING_SHARE, alarm, count, count_verdicts, rates
from expert_iteration.types import Finish, Group, Outcome, Prompt, Rollout, Ticket, Verdict

PROMPT = Prompt(0, "q", "1", "q", (1,), "boxed")

verdicts = st.builds(
    Verdict, st.sampled_from(Outcome), st.just(""), st.floats(0, 1), st.sampled_from([0.0, 0.25, 2 / 3])
)
answers = st.lists(st.tuples(verdicts, st.floats(0, 1)), min_size=1, max_size=6)


def group_of(judged):
    rollouts = tuple(Rollout(i, (5, 6), (0.0, 0.0), "", Finish.STOP, 0, 0) for i in range(len(judged)))
    given, rewards = zip(*judged, strict=True)
    return Group(Ticket(0, 1, PROMPT), rollouts, given, rewards)


def verdict(outcome, **values):
    return Verdict(outcome, "", **values)


def test_format_answer_and_reward_are_means_over_what_was_judged():
    group = group_of(
        [
            (verdict(Outcome.CORRECT, format_reward=1.0), 0.9),
            (verdict(Outcome.WRONG, format_reward=1.0, partial=0.5), 0.4),
            (verdict(Outcome.UNPARSABLE), 0.0),
            (verdict(Outcome.TIMEOUT, format_reward=1.0), 0.7),
            (verdict(Outcome.ERROR, format_reward=1.0), 0.7),
        ]
    )
    metrics = rates(count(group), seconds=2.0)
    assert metrics["rollout/format"] == pytest.approx(2 / 3, abs=1e-6)
    assert metrics["rollout/answer_reward"] == 0.5
    assert metrics["rollout/reward"] == pytest.approx(1.3 / 3, abs=1e-6)
    assert metrics["rollout/success"] == 0.2, "of all answers"
    assert metrics["rollout/tokens_per_second"] == 5


def test_timeouts_and_errors_are_counted_apart_and_abstained_is_their_sum():
    outcomes = [Outcome.TIMEOUT] * 3 + [Outcome.ERROR] + [Outcome.WRONG] * 4
    book = count(group_of([(verdict(outcome), 0.0) for outcome in outcomes]))
    assert (book["timeout"], book["error"], book["abstained"]) == (3, 1, 4)
    metrics = rates(book, 1.0)
    assert [metrics[f"rollout/{key}"] for key in ("timeout", "error", "abstained")] == [3 / 8, 1 / 8, 1 / 2]


@given(st.lists(answers, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_books_of_many_groups_do_not_depend_on_their_order(groups, order):
    counted = [count(group_of(judged)) for judged in groups]
    shuffled = order.sample(counted, len(counted))
    total, again = sum(counted, Counter()), sum(shuffled, Counter())
    assert total == again
    assert all(isinstance(value, int) for value in total.values())
    assert rates(total, 1.0)["rollout/abstained"] == (total["timeout"] + total["error"]) / total["rollouts"]


def test_means_are_unknown_when_nothing_was_judged():
    metrics = rates(count(group_of([(verdict(Outcome.TIMEOUT), 0.0)])), 1.0)
    assert all(math.isnan(metrics[f"rollout/{key}"]) for key in ("format", "answer_reward", "reward"))
    assert metrics["rollout/success"] == 0


def test_fates_of_selection_are_the_only_counts_under_selection():
    book = count(group_of([(verdict(Outcome.CORRECT), 1.0)])) + Counter(kept=1, duplicate=2)
    keys = {key for key in rates(book, 1.0) if key.startswith("selection/")}
    assert keys == {"selection/kept", "selection/kept_share", "selection/duplicate"}


def test_the_alarm_goes_off_above_one_per_cent_and_names_the_counts():
    fine = [verdict(Outcome.CORRECT)] * 99
    assert ALARMING_SHARE == 0.01
    assert alarm(count_verdicts([*fine, verdict(Outcome.TIMEOUT)])) is None
    assert alarm(Counter()) is None
    message = alarm(count_verdicts([*fine, verdict(Outcome.TIMEOUT), verdict(Outcome.ERROR)]))
    assert message == "2 of 101 answers (2.0%) could not be judged (timeout 1, error 1)"
