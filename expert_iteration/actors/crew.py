"""The actors of a run as the driver sees them: asked with a limit, replaced when they can be."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import ray

from expert_iteration.actors.shells import NotStarted
from expert_iteration.placement.places import Place
from expert_iteration.workers import ComponentLost

T = TypeVar("T")
Signs: TypeAlias = Callable[[], Awaitable[object]]
"""Says something else each time it is asked, as long as work goes on."""

LOOK_EVERY = 0.2
"""Seconds between looks at an actor that Ray is about to start again."""

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Part:
    """One actor."""

    name: str
    actor: Any
    log: Path
    replaceable: bool = False
    """It holds nothing that the others cannot give it again."""
    place: Place | None = field(default=None, init=False)

    @property
    def id(self) -> str:
        """What Ray's errors call it."""
        return str(self.actor._actor_id.hex())


class Ground(Protocol):
    """What the actors stand on."""

    def admit(self, part: str, place: Place) -> None:
        """Take note of where a part is, or refuse it."""
        ...

    async def write_stacks(self, found: Sequence[tuple[Place, Path]]) -> set[Path]:
        """Tell processes to write where they stand; returns the logs of those that did."""
        ...


class Lost(ComponentLost):
    """An actor died, with or without another one to come in its place."""

    def __init__(self, part: Part, reason: str, for_good: bool) -> None:
        super().__init__(
            f"{part.name} died: {reason} (see {part.log}; resume={part.log.parents[1]} goes on)."
        )
        self.part = part
        self.reason = reason
        self.for_good = for_good
        """Ray starts none."""


class Crew:
    """All actors of a run.

    A lost actor that is replaceable is started again by Ray, under the same handle, but empty: `renew` makes
    it what it was. The loss of any other actor ends what was asked, with `ComponentLost`.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        limit: float,
        max_restarts: int,
        renew: Callable[[Part], Awaitable[None]],
        ground: Ground,
    ) -> None:
        """`limit` is in seconds and holds for each answer; `max_restarts` is for all actors together."""
        self._parts = parts
        self._limit = limit
        self._max_restarts = self._restarts_left = max_restarts
        self._renew = renew
        self._ground = ground
        self._reviving = asyncio.Lock()
        self._revivals = 0

    async def start(self, part: Part, *arguments: object) -> None:
        """Call `start` of an actor that holds nothing yet, once it is known to be where it can work."""
        part.place = None
        part.place = await self.ask(part, "place")
        self._ground.admit(part.name, part.place)
        await self.ask(part, "start", *arguments)

    async def ask(self, part: Part, method: str, *arguments: object, signs: Signs | None = None) -> Any:
        """What the actor returns, or raises, in its own words.

        Args:
            signs: looked at after each `limit`: as long as they change, the wait goes on.

        Raises:
            TimeoutError: it gave no answer in time, or waited too long itself; all stacks are in the logs.
            Lost: it died, or another actor that it needs.
        """
        answer = asyncio.ensure_future(self._answer(part, method, arguments))
        seen = await signs() if signs else None
        try:
            while not (await asyncio.wait([answer], timeout=self._limit))[0]:
                before, seen = seen, await signs() if signs else None
                if seen == before and not answer.done():
                    silence = f"gave no sign of life in {self._limit:.0f} s (wait_limit)"
                    raise TimeoutError(await self._explain(part, method, silence))
            return answer.result()
        finally:
            answer.cancel()

    async def persist(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns, done again each time an actor is lost and replaced on the way.

        Raises:
            ComponentLost: the actor cannot be replaced, or no restart is left.
        """
        while True:
            revivals = self._revivals
            try:
                return await work()
            except Lost as lost:
                if not lost.part.replaceable:
                    raise
                async with self._reviving:
                    if revivals == self._revivals:
                        await self._revive(lost)
                        self._revivals += 1

    async def _revive(self, lost: Lost) -> None:
        """Replace every actor that is down; one that dies again on the way is found down the next time."""
        down = await self._down()
        if not down:
            # it may still be at work on what was asked, so asking again could do things twice
            raise lost
        await asyncio.gather(*(self._replace(part, lost) for part in down))

    async def _replace(self, part: Part, lost: Lost) -> None:
        if self._restarts_left == 0:
            raise self._exhausted(part, lost.reason if lost.part is part else "as it came back.")
        self._restarts_left -= 1
        logger.warning(
            "%s died (see %s) and is replaced; %d of %d restarts are left (ray.max_restarts).",
            *(part.name, part.log, self._restarts_left, self._max_restarts),
        )
        try:
            await self._renew(part)
        except Lost as again:
            if again.for_good or not again.part.replaceable:
                raise

    async def _down(self) -> list[Part]:
        parts = [part for part in self._parts if part.replaceable]
        are_up = await asyncio.gather(*map(self._is_up, parts))
        return [part for part, is_up in zip(parts, are_up, strict=True) if not is_up]

    async def _is_up(self, part: Part) -> bool:
        """Whether the actor holds what it needs; waits while Ray starts it again."""
        deadline = time.monotonic() + self._limit
        while True:
            try:
                return bool(await self.ask(part, "is_up"))
            except Lost as lost:
                if lost.for_good and self._restarts_left == 0:
                    raise self._exhausted(part, lost.reason) from None
                if lost.for_good or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(LOOK_EVERY)

    def _exhausted(self, part: Part, reason: str) -> Lost:
        limit = f"No restart is left of ray.max_restarts ({self._max_restarts})"
        return Lost(part, f"{reason} {limit}", for_good=True)

    async def _answer(self, part: Part, method: str, arguments: Sequence[object]) -> Any:
        try:
            return await getattr(part.actor, method).remote(*arguments)
        except ray.exceptions.RayTaskError as error:
            if (lost := self._loss(part, error.cause)) is not None:
                raise lost from None
            if isinstance(error.cause, TimeoutError):
                raise TimeoutError(await self._explain(part, method, str(error.cause))) from error
            raise error.cause from error
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
            raise self._loss(part, error) or error from None

    def _loss(self, asked: Part, error: BaseException) -> Lost | None:
        """The loss that `error` tells of, if it does: of the actor that was asked, or of one it asked."""
        if isinstance(error, NotStarted):
            part = next(part for part in self._parts if part.name == str(error))
            return Lost(part, "Ray has started it again.", for_good=False)
        if isinstance(error, ray.exceptions.ObjectLostError):
            return Lost(asked, "a node that held what it needs is lost.", for_good=False)
        if not isinstance(error, ray.exceptions.RayActorError):
            return None
        part = next((part for part in self._parts if part.id == error.actor_id), asked)
        reason = str(error).strip().splitlines()[-1]
        return Lost(part, reason, for_good=not isinstance(error, ray.exceptions.ActorUnavailableError))

    async def _explain(self, part: Part, method: str, what: str) -> str:
        """A line on a wait that was too long; the processes have written down where they stand."""
        written = await self._ground.write_stacks(
            [(other.place, other.log) for other in self._parts if other.place]
        )
        if part.log in written:
            where = f"its stacks are at the end of {part.log}, those of the others in their logs"
        else:
            where = f"it does not react to signals either (see {part.log}; the others' logs end in stacks)"
        return f"{part.name}, asked for {method}: {what}; {where}."
