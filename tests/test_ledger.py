"""What is known of a prompt, and which prompts are drawn for it."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expert_iteration.algorithms import Keep
from expert_iteration.config import PromptsConfig
from expert_iteration.frontier import SIGNAL, Frontier, contrast, novelty
from expert_iteration.ledger import Beta, Ledger, Record
from expert_iteration.types import Finish, Group, Outcome, Prompt, Rollout, Ticket, Verdict

C, W, T = Outcome.CORRECT, Outcome.WRONG, Outcome.TIMEOUT
visits = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.sampled_from([C, W, T]), min_size=1, max_size=5)), max_size=12
)


def prompt(prompt_id: int, level: str = "") -> Prompt:
    return Prompt(prompt_id, "q", "1", "q", (1,), "boxed", level=level)


def visit(prompt_id: int, iteration: int, *outcomes: Outcome, hinted: int = 0) -> Group:
    """One visit, whose last `hinted` answers were given with a hint."""
    plain = len(outcomes) - hinted
    rollouts = tuple(
        Rollout(i, (1,), (0.0,), "", Finish.STOP, 0, 0, rationalised=i >= plain) for i in range(len(outcomes))
    )
    verdicts = tuple(Verdict(outcome, "") for outcome in outcomes)
    return Group(Ticket(0, iteration, prompt(prompt_id)), rollouts, verdicts, (0.0,) * len(outcomes))


def test_a_record_counts_what_was_judged() -> None:
    ledger = Ledger()
    ledger.add(visit(7, 1, C, W, T, W), kept=[0])
    ledger.add(visit(7, 3, W, W), kept=[])
    record = ledger.records[7]
    assert (record.visits, record.attempts, record.successes, record.abstentions, record.kept) == (
        2,
        5,
        1,
        1,
        1,
    )
    assert (record.first_solved, record.last_solved, record.last_seen) == (1, 1, 3)
    assert record.forgotten and not record.rationalised


def test_answers_with_a_hint_are_no_attempts() -> None:
    ledger = Ledger()
    ledger.add(visit(7, 1, W, W, C, hinted=1), kept=[2])
    record = ledger.records[7]
    assert (record.attempts, record.successes, record.kept) == (2, 0, 1)
    assert record.rationalised and not record.solved


def test_prompts_are_newly_solved_once_and_forgotten_when_they_fail_again() -> None:
    ledger = Ledger()
    for iteration, outcome in enumerate([W, C, W, C, W], start=1):
        ledger.add(visit(0, iteration, outcome), kept=[])
        assert ledger.newly_solved(iteration) == ([0] if iteration == 2 else [])
        assert ledger.newly_forgotten(iteration) == ([0] if iteration in (3, 5) else [])


@given(visits)
def test_a_ledger_survives_json(history: list[tuple[int, list[Outcome]]]) -> None:
    ledger = Ledger()
    for iteration, (prompt_id, outcomes) in enumerate(history, start=1):
        ledger.add(visit(prompt_id, iteration, *outcomes), kept=range(len(outcomes) // 2))
    assert Ledger.of(json.loads(json.dumps(ledger.state()))) == ledger


def test_the_posterior_forgets_what_an_older_policy_did() -> None:
    ledger = Ledger()
    assert ledger.posterior(0, Beta(1, 1), 1).mean == 0.5
    for iteration in range(1, 6):
        ledger.add(visit(0, iteration, W, W, W, W), kept=[])
    before = ledger.posterior(0, Beta(1, 1), 5).mean
    for iteration in range(6, 9):
        ledger.add(visit(0, iteration, C, C, C, C), kept=[])
    after = ledger.posterior(0, Beta(1, 1), 8).mean
    assert before < 0.15 and after > 0.8
    assert 0.5 < ledger.posterior(0, Beta(1, 1), 12).mean < 0.7, "nobody has looked for a while"


def test_visits_of_one_iteration_count_alike_in_any_order() -> None:
    one, other = Ledger(), Ledger()
    seen_twice = [visit(0, 3, C, C), visit(0, 3, W, W)]
    for ledger, groups in ((one, seen_twice), (other, seen_twice[::-1])):
        for group in groups:
            ledger.add(group, kept=[])
    assert one.records[0].recent(3) == other.records[0].recent(3) == (2, 2)
    assert one.records[0].recent(5) == (0.5, 0.5)


def test_unvisited_prompts_are_expected_to_be_like_their_kind() -> None:
    ledger = Ledger()
    kinds = {i: "easy" if i < 10 else "hard" for i in range(20)} | {20: "new"}
    for i in range(5):
        ledger.add(visit(i, 1, C, C, C, C), kept=[])
        ledger.add(visit(10 + i, 1, W, W, W, W), kept=[])
    priors = ledger.priors(kinds, 1)
    assert priors["easy"].mean > 0.9 and priors["hard"].mean < 0.1 and priors["new"].mean == 0.5
    assert ledger.posterior(9, priors["easy"], 1) == priors["easy"]


# --- frontier ---


def frontier(count: int = 12, keep: Keep = Keep.GROUPS, **options: int) -> Frontier:
    levels = ["easy", "medium", "hard"]
    prompts = [prompt(i, levels[i * 3 // count]) for i in range(count)]
    return Frontier(prompts, rollouts=4, keep=keep, seed=0, config=PromptsConfig(**options))


def drawn(frontier: Frontier, iteration: int, count: int, ledger: Ledger) -> list[int]:
    return [one.id for one in frontier.draw(iteration, count, ledger)]


def seen(outcomes: dict[int, list[Outcome]], iteration: int = 1) -> Ledger:
    ledger = Ledger()
    for prompt_id, given_ in outcomes.items():
        ledger.add(visit(prompt_id, iteration, *given_), kept=[])
    return ledger


def test_rollouts_go_to_the_kind_that_is_partly_solved() -> None:
    easy, medium, hard = ([C] * 4, [C, W, W, C], [W] * 4)
    ledger = seen({i: [easy, medium, hard][i * 3 // 300] for i in range(0, 300, 2)})
    chosen = drawn(frontier(300), 2, 60, ledger)
    assert sum(100 <= prompt_id < 200 for prompt_id in chosen) >= 50


def test_a_draw_is_a_function_of_seed_iteration_and_ledger() -> None:
    ledger = seen({0: [C, W], 5: [W, W]})
    assert drawn(frontier(), 2, 6, ledger) == drawn(frontier(), 2, 6, seen({5: [W, W], 0: [C, W]}))
    assert drawn(frontier(), 2, 6, ledger) != drawn(frontier(), 3, 6, ledger)


def test_a_solved_prompt_rests_and_is_tested_again() -> None:
    ledger = Ledger()
    for iteration in (1, 2, 3):
        ledger.add(visit(0, iteration, *[C] * 8), kept=[])
    few = frontier(retest_every=4)
    assert 0 not in drawn(few, 4, 11, ledger) and 0 not in drawn(few, 6, 11, ledger)
    assert 0 in drawn(few, 7, 12, ledger)
    assert not few.rests(ledger.records[0], Beta(9, 0.1), 7)


def test_imitation_lets_a_prompt_rest_once_it_has_a_right_answer() -> None:
    record = Record(attempts=4, successes=1, last_seen=1, last_rate=0.25)
    rests = [frontier(keep=keep, retest_every=3).rests(record, Beta(), 2) for keep in Keep]
    assert rests == [keep is Keep.SUCCESSFUL for keep in Keep]
    assert not frontier(keep=Keep.SUCCESSFUL, retest_every=3).rests(record, Beta(), 4)


def test_a_prompt_that_was_never_solved_is_parked_and_retried_ever_more_rarely() -> None:
    few, hopeless = frontier(park_after=8, retry_every=2), Record(attempts=8, last_seen=10)
    assert [few.rests(hopeless, Beta(), iteration) for iteration in (11, 12)] == [True, False]
    hopeless.attempts = 16
    assert [few.rests(hopeless, Beta(), iteration) for iteration in (13, 14)] == [True, False]
    assert not few.rests(Record(attempts=7, last_seen=10), Beta(), 11)


def test_with_too_few_prompts_those_that_rest_come_too_and_all_come_again() -> None:
    ledger = seen({0: [W] * 8})
    assert sorted(drawn(frontier(3), 2, 6, ledger)) == [0, 0, 1, 1, 2, 2]
    assert 0 not in drawn(frontier(3), 2, 2, ledger)


@pytest.mark.parametrize("rollouts", [1, 2, 8])
@pytest.mark.parametrize("signal", SIGNAL.values())
def test_most_is_to_be_learned_between_all_and_nothing(
    signal: Callable[[float, int], float], rollouts: int
) -> None:
    assert signal(0.0, rollouts) == signal(1.0, rollouts) == 0
    assert signal(0.5, rollouts) > signal(0.95, rollouts) > 0


def test_imitation_prefers_the_harder_of_two_prompts_that_contrast_cannot_tell_apart() -> None:
    assert contrast(0.2, 4) == pytest.approx(contrast(0.8, 4))
    assert novelty(0.2, 4) > 2 * novelty(0.8, 4)
