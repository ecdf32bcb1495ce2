"""The careless pupils who wrote the corpus of the base model.

The weakness of the base model is planted here, so that expert iteration has something to repair: the
pupils know the format and the arithmetic, but often forget the last step and sometimes slip. A model
that imitates them is right now and then, and its right answers are better than its habits.
"""

import random
import re
from collections.abc import Sequence

from expert_iteration.demo.problems import COMPUTE, Problem, worked_response

FORGETS_LAST_STEP = 0.7
"""Probability that a problem of two or more steps is answered with its last but one value."""
SLIPS = 0.20
"""Probability that one result, uniformly chosen among the steps written down, is off."""

_SLIP_OFFSETS = (-10, -2, -1, 1, 2, 10)
_SMALLEST, _LARGEST = 1, 99
_STEP = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")


def careless_steps(problem: Problem, rng: random.Random) -> tuple[list[str], int]:
    """Steps as a careless pupil writes them, and the answer the pupil gives.

    A slip is carried on: the steps after it use the wrong result, rounded down and kept between 1 and 99.
    """
    forgets = problem.difficulty > 1 and rng.random() < FORGETS_LAST_STEP
    remembered = problem.steps[:-1] if forgets else problem.steps
    slip_at = rng.randrange(len(remembered)) if rng.random() < SLIPS else None
    return _write_down(remembered, slip_at, rng)


def careless_solution(problem: Problem, rng: random.Random) -> str:
    """`careless_steps` in the response format of the task."""
    return worked_response(*careless_steps(problem, rng))


def _write_down(steps: Sequence[str], slip_at: int | None, rng: random.Random) -> tuple[list[str], int]:
    value = _parse(steps[0])[0]
    written = []
    for position, step in enumerate(steps):
        _, symbol, operand = _parse(step)
        result = min(max(COMPUTE[symbol](value, operand), _SMALLEST), _LARGEST)
        if position == slip_at:
            result = _slip(result, rng)
        written.append(f"{value}{symbol}{operand}={result}")
        value = result
    return written, value


def _parse(step: str) -> tuple[int, str, int]:
    match = _STEP.fullmatch(step)
    assert match is not None, step
    return int(match[1]), match[2], int(match[3])


def _slip(result: int, rng: random.Random) -> int:
    return rng.choice([result + by for by in _SLIP_OFFSETS if _SMALLEST <= result + by <= _LARGEST])
