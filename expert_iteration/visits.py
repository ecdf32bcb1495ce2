"""Which prompt each visit of a run draws: shuffled passes, or the frontier of what can be learned."""

import random
from dataclasses import replace

from expert_iteration.algorithms import algorithm_of
from expert_iteration.choices import PromptStrategy
from expert_iteration.config import RunConfig
from expert_iteration.frontier import Frontier
from expert_iteration.ledger import Ledger
from expert_iteration.prompts import PromptOrder, PromptSet
from expert_iteration.types import Ticket

Plans = dict[int, list[int]]
"""Iteration -> the prompt ids of its visits, in order."""


class Visits:
    """Tickets for the groups of a run.

    Uniform visits are a function of the seed and the number of the visit. Those of the frontier are planned
    for a whole iteration, by what the ledger says when its first group is ordered; plans are part of a
    checkpoint.
    """

    def __init__(self, config: RunConfig, prompts: PromptSet) -> None:
        self._config = config
        self._prompts = {prompt.id: prompt for prompt in prompts.prompts}
        self._order = PromptOrder(prompts, config.prompts_per_iteration, config.seed)
        keep = algorithm_of(config).keep
        self._frontier = Frontier(
            prompts.prompts, config.rollouts_per_prompt, keep, config.seed, config.prompts
        )
        self.plans: Plans = {}

    def iteration_of(self, group_id: int) -> int:
        """1 for the first."""
        return group_id // self._config.prompts_per_iteration + 1

    def needs_ledger(self, iteration: int) -> bool:
        """Whether `plan` must be called before the tickets of `iteration` can be had."""
        planned = self._config.prompts.strategy is PromptStrategy.frontier
        return planned and iteration not in self.plans

    def plan(self, iteration: int, ledger: Ledger) -> None:
        """Draw the prompts of an iteration; a plan that stands is kept, and older ones are forgotten."""
        if not self.needs_ledger(iteration):
            return
        drawn = self._frontier.draw(iteration, self._config.prompts_per_iteration, ledger)
        self.plans[iteration] = [prompt.id for prompt in drawn]

    def forget(self, iteration: int) -> None:
        """All groups up to `iteration` have come in."""
        self.plans = {number: plan for number, plan in self.plans.items() if number > iteration}

    def ticket(self, group_id: int) -> Ticket:
        ticket = self._order.ticket(group_id)
        if (plan := self.plans.get(ticket.iteration)) is not None:
            position = group_id % self._config.prompts_per_iteration
            ticket = replace(ticket, prompt=self._prompts[plan[position]])
        if refill := self._config.sampling.refill:
            lot = random.Random(f"{self._config.seed}/{group_id}/spares")
            spares = lot.sample(list(self._prompts.values()), min(refill, len(self._prompts)))
            ticket = replace(ticket, spares=tuple(spares))
        return ticket
