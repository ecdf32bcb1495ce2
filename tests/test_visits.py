"""Which prompt each visit draws."""

from expert_iteration.choices import PromptStrategy
from expert_iteration.config import AlgorithmConfig, PromptsConfig, RunConfig, SamplingConfig
from expert_iteration.ledger import Ledger
from expert_iteration.prompts import PromptOrder, PromptSet
from expert_iteration.types import Finish, Group, Outcome, Prompt, Rollout, Ticket, Verdict
from expert_iteration.visits import Visits

PROMPTS = PromptSet(tuple(Prompt(i, f"q{i}", "1", f"q{i}", (i,), "boxed") for i in range(12)), 12, 0)


def visits(strategy: PromptStrategy, refill: int = 0) -> Visits:
    config = RunConfig(
        prompts_per_iteration=4,
        rollouts_per_prompt=2,
        algorithm=AlgorithmConfig("expert_iteration"),
        prompts=PromptsConfig(strategy=strategy),
        sampling=SamplingConfig(refill=refill, max_tokens=8),
    )
    return Visits(config, PROMPTS)


def drawn(given: Visits, iteration: int) -> list[int]:
    return [given.ticket(group_id).prompt.id for group_id in range(4 * (iteration - 1), 4 * iteration)]


def solved(*prompts: int) -> Ledger:
    ledger = Ledger()
    rollouts = tuple(Rollout(i, (1,), (0.0,), "", Finish.STOP, 0, 0) for i in range(30))
    verdicts = (Verdict(Outcome.CORRECT, ""),) * 30
    for prompt in prompts:
        ledger.add(Group(Ticket(0, 1, PROMPTS.prompts[prompt]), rollouts, verdicts, (1.0,) * 30), kept=[])
    return ledger


def test_uniform_visits_follow_the_order_of_passes_and_need_no_ledger():
    uniform, order = visits(PromptStrategy.uniform), PromptOrder(PROMPTS, 4, seed=0)
    for iteration in (1, 2, 3):
        assert not uniform.needs_ledger(iteration)
        expected = [order.ticket(i).prompt.id for i in range(4 * iteration - 4, 4 * iteration)]
        assert drawn(uniform, iteration) == expected


def test_the_frontier_is_planned_once_for_each_iteration():
    frontier = visits(PromptStrategy.frontier)
    assert frontier.needs_ledger(1)
    frontier.plan(1, Ledger())
    first = drawn(frontier, 1)
    frontier.plan(1, solved(*first))
    assert drawn(frontier, 1) == first, "a plan that stands is kept"
    frontier.plan(2, solved(*first))
    assert not set(drawn(frontier, 2)) & set(first)
    assert [frontier.ticket(i).iteration for i in (0, 3, 4)] == [1, 1, 2]


def test_plans_are_forgotten_when_their_iteration_is_over_and_survive_otherwise():
    frontier = visits(PromptStrategy.frontier)
    for iteration in (1, 2):
        frontier.plan(iteration, Ledger())
    second = drawn(frontier, 2)
    frontier.forget(1)
    restored = visits(PromptStrategy.frontier)
    restored.plans = frontier.plans
    assert list(restored.plans) == [2] and drawn(restored, 2) == second
    assert restored.needs_ledger(3) and not restored.needs_ledger(2)


def test_tickets_bring_other_prompts_along_where_groups_may_be_refilled():
    with_spares = visits(PromptStrategy.uniform, refill=3)
    tickets = [with_spares.ticket(i) for i in range(8)]
    assert {len(ticket.spares) for ticket in tickets} == {3}
    assert tickets == [visits(PromptStrategy.uniform, refill=3).ticket(i) for i in range(8)]
    assert visits(PromptStrategy.uniform).ticket(0).spares == ()
