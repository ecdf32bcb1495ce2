"""The parts of a run as the driver sees them: remote or in this process, it cannot tell."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from expert_iteration.evaluation import Judged
from expert_iteration.ledger import Ledger
from expert_iteration.types import Metrics, Pace, Prompt, Snapshot, Tally, Ticket


class ComponentLost(RuntimeError):
    """A part of the run died and cannot be had back. The message names it and where its log lies."""


class Workers(Protocol):
    """Everything the main loop asks for. Each call waits for its result, with a limit."""

    async def collect(self, tickets: Sequence[Ticket]) -> None:
        """Sample, grade, score and store the groups of `tickets`."""
        ...

    async def answer(self, prompts: Sequence[Prompt], temperature: float, seed: int) -> Judged:
        """One judged answer to each prompt, in order; nothing is stored."""
        ...

    async def snapshot(self) -> Snapshot: ...

    async def book(self, iteration: int) -> Tally: ...

    async def missing(self, group_ids: Sequence[int]) -> list[int]:
        """Those of `group_ids` that the buffer has not received."""
        ...

    async def ledger(self) -> Ledger: ...

    async def rest(self) -> None:
        """Have engines and references give up the memory that they are to give up while the trainer learns.

        Nothing is asked of an engine before the next push, which wakes it.
        """
        ...

    async def learn(self, pace: Pace) -> Metrics: ...

    async def publish(self, version: int, probes: Sequence[tuple[int, ...]] = ()) -> Metrics:
        """Push the trained weights to every engine, then let the buffer drop what is too old.

        Where there are `probes`, the tokens of some prompts, the push is verified by answers to them.
        """
        ...

    async def reset_optimizer(self) -> None: ...

    async def restart(self) -> None:
        """Give the trainer the initial weights and a fresh optimizer; the engines keep theirs."""
        ...

    async def save(self, folder: Path) -> None: ...

    async def load(self, folder: Path) -> None: ...

    async def close(self) -> None: ...
