r"""Operations on numbers: exact on rational ones, else real or complex to `DIGITS` digits.

Bounded in time and memory whatever the numbers: what would not fit raises `NoValueError`, as does what is not
defined. Real numbers stay real: the root of a negative number is undefined, not i times something.
"""

from collections.abc import Callable
from fractions import Fraction
from math import ceil, comb, factorial, floor, isqrt
from typing import Any, TypeAlias

from mpmath import MPContext

DIGITS = 50
TOLERANCE = 1e-30
"""Largest relative difference between two irrational numbers that count as equal."""
MAX_BITS = 20_000
"""Length of a numerator or a denominator."""
MAX_MAGNITUDE = 10_000
"""Binary exponent of an irrational number."""
MAX_COUNT = 1_000
"""Largest argument of a factorial or a binomial coefficient, and largest degree of a root."""

Value: TypeAlias = Any
"""A Fraction, or a real or complex number of mpmath, whose types are made at run time."""


class NoValueError(ArithmeticError):
    """An operation is undefined for its arguments, or its result too large."""


mp = MPContext()
"""Not for two threads at once: mpmath changes the precision while it computes."""
mp.dps = DIGITS
CONSTANTS: dict[str, Value] = {r"\pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1)}


def apply(name: str, arguments: list[Value]) -> Value:
    """The value of an operation of formula.py.

    Raises:
        NoValueError: it has none that could be computed here.
    """
    try:
        return _bounded(OPERATIONS[name](*arguments))
    except (ZeroDivisionError, ValueError, OverflowError) as error:
        raise NoValueError(name) from error


def close(left: Value, right: Value) -> bool:
    """Whether two values are equal: exactly if both are rational, else up to `TOLERANCE`."""
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left == right
    left, right = _inexact(left), _inexact(right)
    return bool(abs(left - right) <= TOLERANCE * max(abs(left), abs(right), TOLERANCE))


def is_real(value: Value) -> bool:
    return not isinstance(value, mp.mpc)


def _bounded(value: Value) -> Value:
    if isinstance(value, Fraction):
        fits = max(value.numerator.bit_length(), value.denominator.bit_length()) <= MAX_BITS
    else:
        fits = mp.isfinite(value) and (not value or abs(mp.mag(value)) <= MAX_MAGNITUDE)
    if not fits:
        raise NoValueError("too large")
    return value


def _inexact(value: Value) -> Value:
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _on_pairs(operation: Callable[[Value, Value], Value]) -> Callable[[Value, Value], Value]:
    """An operation of Python's, which does not mix fractions and numbers of mpmath."""

    def applied(left: Value, right: Value) -> Value:
        if isinstance(left, Fraction) and isinstance(right, Fraction):
            return operation(left, right)
        return operation(_inexact(left), _inexact(right))

    return applied


def _of_reals(function: Callable[..., Value]) -> Callable[..., Value]:
    """A function of mpmath that has no value where that would leave the real numbers."""

    def applied(*arguments: Value) -> Value:
        result = function(*map(_inexact, arguments))
        if not is_real(result) and all(map(is_real, arguments)):
            raise NoValueError("not real")
        return result

    return applied


def _power(base: Value, exponent: Value) -> Value:
    if not isinstance(exponent, Fraction):
        return _of_reals(mp.power)(base, exponent)
    if exponent.denominator > 1:
        base = _root(base, Fraction(exponent.denominator))
    times = exponent.numerator
    if not isinstance(base, Fraction):
        return mp.power(base, times)
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if (times <= 0 and not base) or (abs(times) * size > MAX_BITS and abs(base) not in (0, 1)):
        raise NoValueError("power")
    return base**times


def _root(base: Value, degree: Value) -> Value:
    times = _count(degree)
    if isinstance(base, Fraction):
        if base < 0 and times % 2:
            return -_root(-base, degree)
        if (exact := _exact_root(base, times)) is not None:
            return exact
    return _of_reals(lambda number: mp.root(number, times))(base)


def _exact_root(base: Fraction, degree: int) -> Fraction | None:
    """The rational root of a rational number, None when it has none or when that is not looked for."""
    if base < 0 or degree not in (2, 3, 4):
        return None
    top, bottom = _whole_root(base.numerator, degree), _whole_root(base.denominator, degree)
    return Fraction(top, bottom) if Fraction(top, bottom) ** degree == base else None


def _whole_root(number: int, degree: int) -> int:
    if degree == 3:
        return int(mp.nint(mp.cbrt(number)))
    return isqrt(number) if degree == 2 else isqrt(isqrt(number))


def _logarithm(argument: Value, base: Value) -> Value:
    return _of_reals(mp.log)(argument) / _of_reals(mp.log)(base)


def _count(value: Value) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= MAX_COUNT:
        raise NoValueError("no small whole number")
    return int(value)


def _rounded(
    exact: Callable[[Fraction], int], inexact: Callable[[Value], Value]
) -> Callable[[Value], Fraction]:
    def applied(value: Value) -> Fraction:
        if not is_real(value):
            raise NoValueError("rounding of a complex number")
        return Fraction(exact(value) if isinstance(value, Fraction) else int(inexact(value)))

    return applied


OPERATIONS: dict[str, Callable[..., Value]] = {
    "+": _on_pairs(lambda left, right: left + right),
    "*": _on_pairs(lambda left, right: left * right),
    "/": _on_pairs(lambda left, right: left / right),
    "^": _power,
    "root": _root,
    "abs": abs,
    "floor": _rounded(floor, mp.floor),
    "ceil": _rounded(ceil, mp.ceil),
    "!": lambda value: Fraction(factorial(_count(value))),
    "binom": lambda above, below: Fraction(comb(_count(above), _count(below))),
    "degree": lambda value: _inexact(value) * mp.pi / 180,
    "log": _logarithm,
    "ln": _of_reals(mp.log),
    "exp": _of_reals(mp.exp),
    "sin": _of_reals(mp.sin),
    "cos": _of_reals(mp.cos),
    "tan": _of_reals(mp.tan),
    "cot": _of_reals(mp.cot),
    "sec": _of_reals(mp.sec),
    "csc": _of_reals(mp.csc),
    "arcsin": _of_reals(mp.asin),
    "arccos": _of_reals(mp.acos),
    "arctan": _of_reals(mp.atan),
    "sinh": _of_reals(mp.sinh),
    "cosh": _of_reals(mp.cosh),
    "tanh": _of_reals(mp.tanh),
}
