r"""Equality of two formulas or two relations, decided by their values at fixed points.

Different rational functions agree at such a point by accident only (the lemma of Schwartz and Zippel), and
what is irrational is compared to 30 digits.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from threading import Lock

from expert_iteration.grading.arithmetic import CONSTANTS, NoValueError, Value, apply, close, is_real
from expert_iteration.grading.formula import Formula, Operation, UnreadableError, read

_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
MAX_SYMBOLS = 12
ENOUGH = 2
"""Points at which both formulas must have a value when they hold symbols."""

_one_at_a_time = Lock()

Sides = tuple[str, str]
"""Left and right of a relation, normal texts."""


def identical(left: str, right: str) -> bool | None:
    """Whether two normal texts are formulas of one value; None if they are not read or lack values."""
    try:
        formulas = read(left), read(right)
    except UnreadableError:
        return None
    enough = ENOUGH if _symbols(*formulas) else 1
    seen = 0
    with _one_at_a_time:
        for one, other in _values(*formulas):
            if not close(one, other):
                return False
            seen += 1
    return True if seen >= enough else None


def proportion(left: Sides, right: Sides) -> int | None:
    """Sign of the constant c for which the difference of the sides of `left` is c times that of `right`.

    0 when there is no such constant, None when a side is not read or lacks values; a complex c counts as 1.
    """
    try:
        formulas = _difference(left), _difference(right)
        with _one_at_a_time:
            return _sign_of_factor([pair for pair in _values(*formulas) if any(pair)])
    except (UnreadableError, NoValueError):
        return None


def _sign_of_factor(pairs: list[tuple[Value, Value]]) -> int | None:
    if any(not all(pair) for pair in pairs):
        return 0
    factors = [apply("/", list(pair)) for pair in pairs]
    if any(not close(factor, factors[0]) for factor in factors):
        return 0
    if len(factors) < ENOUGH:
        return None
    return -1 if is_real(factors[0]) and factors[0] < 0 else 1


def _difference(sides: Sides) -> Formula:
    left, right = sides
    return Operation("+", (read(left), Operation("*", (Fraction(-1), read(right)))))


def _values(left: Formula, right: Formula) -> Iterator[tuple[Value, Value]]:
    """The values of both formulas at each point where both have one."""
    symbols = sorted(_symbols(left, right))
    if len(symbols) > MAX_SYMBOLS:
        return
    for point in _points(symbols):
        try:
            yield _value(left, point), _value(right, point)
        except NoValueError:
            continue


def _value(formula: Formula, point: Mapping[str, Value]) -> Value:
    if isinstance(formula, Operation):
        return apply(formula.name, [_value(argument, point) for argument in formula.arguments])
    return point[formula] if isinstance(formula, str) else formula


def _points(symbols: list[str]) -> Iterator[dict[str, Value]]:
    """Above 1, below 1, large, negative, of mixed signs, and whole numbers: one point without symbols."""
    kinds = (
        lambda k: Fraction(_PRIMES[k + 4], _PRIMES[k + 2]),
        lambda k: Fraction(_PRIMES[k + 1], _PRIMES[k + 6]),
        lambda k: Fraction(_PRIMES[k + 9], 3),
        lambda k: -Fraction(_PRIMES[k + 5], _PRIMES[k + 3]),
        lambda k: Fraction((-1) ** k * _PRIMES[k + 7], _PRIMES[k + 8]),
        lambda k: Fraction(3 + 2 * k),
        lambda k: Fraction(8 + 3 * k),
    )
    for kind in kinds if symbols else kinds[:1]:
        yield CONSTANTS | {symbol: kind(rank) for rank, symbol in enumerate(symbols)}


def _symbols(*formulas: Formula) -> set[str]:
    found: set[str] = set()
    for formula in formulas:
        if isinstance(formula, Operation):
            found |= _symbols(*formula.arguments)
        elif isinstance(formula, str) and formula not in CONSTANTS:
            found.add(formula)
    return found
