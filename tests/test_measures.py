"""Estimates from n answers to a question, held against brute force."""

from collections import Counter
from itertools import combinations
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expert_iteration.measures import bootstrap, majority_at_k, pass_at_k

VOTES = st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=8)


def majority_of(votes, right):
    """Chance that the answer with the most votes is right; of several, one is drawn."""
    counts = Counter(vote for vote in votes if vote is not None)
    leaders = [vote for vote, count in counts.items() if count == max(counts.values())]
    return fmean(vote in right for vote in leaders) if leaders else 0.0


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_answer(case):
    n, correct, k = case
    subsets = list(combinations([i < correct for i in range(n)], k))
    assert pass_at_k(n, correct, k) == pytest.approx(fmean(map(any, subsets)))


def test_pass_at_k_of_very_many_answers_stays_finite():
    assert 0 < pass_at_k(1_000_000, 1, 100) == pytest.approx(1e-4)
    assert pass_at_k(4096, 0, 4096) == 0
    assert pass_at_k(4096, 1, 4096) == 1


@given(VOTES, st.sets(st.sampled_from("abcd")), st.data())
def test_a_majority_vote_is_the_mean_over_all_subsets(votes, right, data):
    k = data.draw(st.integers(1, len(votes)))
    subsets = list(combinations(votes, k))
    expected = fmean(majority_of(subset, right) for subset in subsets)
    assert majority_at_k(votes, [vote in right for vote in votes], k) == pytest.approx(expected)


def test_a_tie_is_drawn_and_a_response_without_an_answer_has_no_vote():
    assert majority_at_k(["a", "b"], [True, False], 2) == 0.5
    assert majority_at_k(["a", None, None], [True, False, False], 3) == 1
    assert majority_at_k([None, None], [False, False], 2) == 0


def test_an_answer_that_most_of_its_responses_got_wrong_is_wrong():
    assert majority_at_k(["5", "5", "5"], [True, False, False], 3) == 0
    assert majority_at_k(["5", "5"], [True, False], 2) == 1


def test_a_vote_of_very_many_different_answers_is_counted_exactly():
    votes = [str(i // 2) for i in range(256)]
    assert majority_at_k(votes, [i < 2 for i in range(256)], 256) == pytest.approx(1 / 128)
    assert majority_at_k(votes, [i < 2 for i in range(256)], 1) == pytest.approx(1 / 128)


def test_a_bootstrap_interval_holds_the_mean_and_narrows_with_the_questions():
    few, many = [0.0, 1.0] * 10, [0.0, 1.0] * 1000
    low, high = bootstrap(few)
    assert low < 0.5 < high
    narrow_low, narrow_high = bootstrap(many)
    assert narrow_high - narrow_low < (high - low) / 5
    # standard error of the mean of 2,000 coin tosses: 0.0112
    assert (narrow_low, narrow_high) == pytest.approx((0.5 - 1.96 * 0.0112, 0.5 + 1.96 * 0.0112), abs=0.002)


def test_a_bootstrap_is_the_same_every_time():
    assert bootstrap([0.1, 0.9, 0.4]) == bootstrap([0.1, 0.9, 0.4])
    assert bootstrap([0.25] * 5) == (0.25, 0.25)
