r"""Reading: a formula in normal spelling becomes a tree of numbers, symbols and operations.

Only what has one meaning is read. A word, an unknown command, two numbers side by side and ``2\frac{5}{3}``
(a sum or a product?) are refused with `UnreadableError`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from expert_iteration.grading import lexicon
from expert_iteration.grading.lexicon import is_function, is_letter, is_number, is_symbol

MAX_TOKENS = 250
"""Longest text that is read; so no tree is deeper."""
MAX_DEPTH = 40
"""Groups and functions inside one another."""
_ROUNDING = {r"\lfloor": "floor", r"\lceil": "ceil"}


@dataclass(frozen=True, slots=True)
class Operation:
    """A function of one or two formulas."""

    name: str
    """A row of `OPERATIONS` in arithmetic.py."""
    arguments: tuple["Formula", ...]


Formula: TypeAlias = Fraction | str | Operation
r"""A number, a symbol (``x``, ``x_1``, ``\alpha``; constants: ``e``, ``i``, ``\pi``) or an operation."""

MINUS_ONE = Fraction(-1)


class UnreadableError(ValueError):
    """The text is no formula, or one that could mean two things."""


def read(text: str) -> Formula:
    """The formula that a normal text spells.

    Raises:
        UnreadableError: it is no formula, or not certainly one.
    """
    tokens = lexicon.lexed(text)
    if len(tokens) > MAX_TOKENS:
        raise UnreadableError("too long")
    reader = _Reader(tokens)
    formula = reader.sum()
    reader.expect(lexicon.END)
    return formula


class _Reader:
    """Recursive descent: sum, product, power, factor."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._bars = 0
        """Bars of absolute values that are open in the innermost brackets."""

    @property
    def _next(self) -> str:
        return self._tokens[self._at]

    def _take(self) -> str:
        token = self._next
        if token == lexicon.END:
            raise UnreadableError("the end of the text")
        self._at += 1
        return token

    def _takes(self, *tokens: str) -> bool:
        """Whether the next token is one of these, which is then taken."""
        found = self._next in tokens
        self._at += found
        return found

    def expect(self, token: str) -> None:
        if self._next != token:
            raise UnreadableError(f"{self._next!r} instead of {token!r}")
        self._at += token != lexicon.END

    def sum(self) -> Formula:
        total = self._signed(self._product)
        while self._next in ("+", "-"):
            total = Operation("+", (total, self._signed(self._product)))
        return total

    def _signed(self, read_on: Callable[[], Formula]) -> Formula:
        negative = False
        while self._next in ("+", "-"):
            negative ^= self._take() == "-"
        return Operation("*", (MINUS_ONE, read_on())) if negative else read_on()

    def _product(self) -> Formula:
        product = self._power()
        alone = isinstance(product, Fraction)
        while True:
            if self._takes(*lexicon.TIMES):
                product = Operation("*", (product, self._signed(self._power)))
            elif self._takes(*lexicon.DIVIDED):
                product = Operation("/", (product, self._signed(self._power)))
            elif self._opens_factor():
                product = self._juxtaposed(product, alone)
            else:
                return product
            alone = False

    def _opens_factor(self) -> bool:
        return lexicon.opens_factor(self._next) or (self._next == "|" and not self._bars)

    def _juxtaposed(self, product: Formula, alone: bool) -> Formula:
        r"""``2x`` is a product, ``2\frac{3}{4}`` the sum of a mixed number."""
        if is_number(self._next):
            raise UnreadableError("a number after a factor")
        factor = self._power()
        literal = _literal_fraction(factor)
        if not alone or literal is None:
            return Operation("*", (product, factor))
        if literal[0] >= literal[1] or self._opens_factor():
            raise UnreadableError("a whole number before a fraction")
        return Operation("+", (product, factor))

    def _power(self) -> Formula:
        base = self._factor()
        while self._next in ("^", "!"):
            if self._take() == "!":
                if self._next == "!":
                    raise UnreadableError("a double factorial")
                base = Operation("!", (base,))
            elif self._takes(r"\circ"):
                base = Operation("degree", (base,))
            else:
                base = Operation("^", (base, self._signed(self._factor)))
        return base

    def _factor(self) -> Formula:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError("nesting")
        factor = self._next_factor()
        self._depth -= 1
        return factor

    def _next_factor(self) -> Formula:
        token = self._take()
        if is_number(token):
            return Fraction(token.replace(",", "").rstrip("."))
        if token in lexicon.CLOSING:
            return self._group(token)
        if token == "|":
            return self._absolute()
        if token in lexicon.FUNCTION_LETTERS and self._next == "(":
            return self._applied_letter(token)
        if is_letter(token):
            return self._subscripted(token)
        name = token.removeprefix("\\")
        if is_symbol(token):
            return self._subscripted(f"\\{name}")
        return self._applied(name) if is_function(token) else self._command(name)

    def _group(self, opening: str) -> Formula:
        bars, self._bars = self._bars, 0
        inside = self.sum()
        self._bars = bars
        self.expect(lexicon.CLOSING[opening])
        return Operation(_ROUNDING[opening], (inside,)) if opening in _ROUNDING else inside

    def _absolute(self) -> Formula:
        self._bars += 1
        inside = self.sum()
        self.expect("|")
        self._bars -= 1
        return Operation("abs", (inside,))

    def _subscripted(self, symbol: str) -> str:
        if not self._takes("_"):
            return symbol
        index = self._take()
        if index != "{":
            return f"{symbol}_{index}"
        start = self._at
        while self._take() != "}":
            continue
        return f"{symbol}_{''.join(self._tokens[start : self._at - 1])}"

    def _applied_letter(self, letter: str) -> str:
        """``f(2)`` as a symbol."""
        start = self._at
        self._factor()
        return letter + "".join(self._tokens[start : self._at])

    def _command(self, name: str) -> Formula:
        if name in ("frac", "binom"):
            return Operation("/" if name == "frac" else name, (self._argument(), self._argument()))
        if name == "sqrt":
            degree = self._group(self._take()) if self._next == "[" else Fraction(2)
            return Operation("root", (self._argument(), degree))
        if name == "log":
            base = self._argument() if self._takes("_") else Fraction(10)
            return Operation("log", (self._operand(), base))
        raise UnreadableError(f"{name!r} is unknown")

    def _argument(self) -> Formula:
        """What a command takes: a group, or one digit, letter or symbol."""
        token = self._next
        single = is_letter(token) or is_symbol(token) or (is_number(token) and len(token) == 1)
        if not single and token not in ("{", "("):
            raise UnreadableError(f"argument {token!r}")
        return self._factor()

    def _applied(self, name: str) -> Formula:
        r"""``\sin x``, ``\sin^2 x`` or the inverse ``\sin^{-1} x``."""
        if not self._takes("^"):
            return Operation(name, (self._operand(),))
        exponent = self._signed(self._factor)
        if exponent != Operation("*", (MINUS_ONE, Fraction(1))):
            return Operation("^", (Operation(name, (self._operand(),)), exponent))
        if not is_function(f"arc{name}"):
            raise UnreadableError(f"inverse of {name}")
        return Operation(f"arc{name}", (self._operand(),))

    def _operand(self) -> Formula:
        r"""What a function is applied to: ``(x)``, or the factors up to the next sign or function."""
        if self._next in lexicon.CLOSING:
            return self._factor()
        operand = self._power()
        while self._opens_factor() and not is_function(self._next) and self._next != r"\log":
            operand = self._juxtaposed(operand, isinstance(operand, Fraction))
        return operand


def _literal_fraction(formula: Formula) -> tuple[Fraction, Fraction] | None:
    """Top and bottom of a fraction of two numbers."""
    if not isinstance(formula, Operation) or formula.name != "/":
        return None
    top, bottom = formula.arguments
    return (top, bottom) if isinstance(top, Fraction) and isinstance(bottom, Fraction) else None
