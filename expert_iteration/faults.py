"""Deaths on order, for the tests of what happens then.

``EI_FAULT=<point>:<n>`` in the environment has every process of a run kill itself when it reaches `point`
for the n-th time. With ``EI_FAULT_ONCE=<file>`` only the first one does: the file marks its death, and the
process that takes its place lives.
"""

import os
import signal
from itertools import count
from pathlib import Path

POINTS = {
    "buffer.add": "Before each finished group enters the buffer.",
    "collector.generate": "Before an order's answers are asked of the engine, for training or evaluation.",
    "collector.receive": "In the collector actor, in the middle of a push.",
    "collector.store": "Before finished groups go to the buffer.",
    "driver.learn": "Before the trainer is asked for optimizer steps.",
    "driver.publish": "Before the trainer is asked for a push.",
    "reference.score": "In the reference actor, before it computes log-probs.",
    "save.manifest": "In a save, before the manifest is written.",
    "save.parts": "In a save, when all parts are written and none is surely on the disk.",
    "save.rename": "In a save, before a whole checkpoint gets its name.",
    "save.rotate": "In a save, before older checkpoints are removed.",
    "trainer.push": "Before weights are pushed to the engines.",
    "trainer.step": "Before each optimizer step; its batch is drawn.",
}
"""Where a process can be told to die."""

_visits = count(1)


def reach(point: str) -> None:
    """Die here if the environment says so."""
    if point == _POINT and next(_visits) == _VISIT and _is_first():
        os.kill(os.getpid(), signal.SIGKILL)


def order_of(text: str) -> tuple[str, int]:
    """The point and the visit that ``EI_FAULT`` names; nothing is named by an empty text.

    Raises:
        ValueError: there is no such point, or no such visit.
    """
    point, _, visit = text.partition(":")
    if text and (point not in POINTS or not visit.isdecimal() or int(visit) == 0):
        raise ValueError(
            f"EI_FAULT ({text}) must be POINT:N with N from 1, POINT one of {', '.join(sorted(POINTS))}."
        )
    return point, int(visit or 0)


def _is_first() -> bool:
    mark = os.environ.get("EI_FAULT_ONCE")
    if mark is None:
        return True
    try:
        Path(mark).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


_POINT, _VISIT = order_of(os.environ.get("EI_FAULT", ""))
