r"""The program of a grading worker: math-verify in a process that may be killed at any time.

Run by pool.py as a plain script. It reads JSON lists of texts from a connection and answers each with one:

* ``["judge", answer, gold]``: correct, wrong, unparsable (the answer) or gold (the gold does not parse);
* ``["find", text]``: the last expression of the text that math-verify can read, empty without one.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from re import Match
from typing import Any

from latex2sympy2_extended import NormalizationConfig
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from math_verify.parser import extract_match, get_extraction_regexes
from sympy import Eq, Expr, Rational, SympifyError

sys.path.append(str(Path(__file__).parents[2]))

from expert_iteration.confinement import serve

MEMORY_BYTES = 400 << 20
ROUNDING = 12
"""Decimals that floats are compared to; math-verify's own 6 takes 3.1415927 for pi."""
TOLERANCE = 1e-12

# The whole text is one formula, and no unit is dropped: the parent has taken units and boxes off.
_FORMULA = [
    LatexExtractionConfig(
        boxed_match_priority=-1,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
        ),
    )
]
# Boxes have been looked for by the parent.
_PROSE = get_extraction_regexes([LatexExtractionConfig(boxed_match_priority=-1), ExprExtractionConfig()])


def main() -> None:
    judge("1+x", "x+1")
    find("so it is $x+1$, or 2")
    serve(answer, MEMORY_BYTES)


def answer(task: str, *texts: str) -> str:
    tasks: dict[str, Callable[..., str]] = {"judge": judge, "find": find}
    return tasks[task](*texts)


def judge(answer: str, gold: str) -> str:
    """Compare two formulas; gold goes first, because math-verify is not symmetric."""
    wanted = read(gold)
    if wanted is None:
        return "gold"
    given = read(answer)
    if given is None:
        return "unparsable"
    equal = verify(wanted, given, float_rounding=ROUNDING, timeout_seconds=None)
    return "correct" if equal and not contradicted(wanted, given) else "wrong"


def find(text: str) -> str:
    """The expression that math-verify would extract from a text, as it is written there.

    Phrases such as "final answer is" come first, then what stands last.
    """
    found = next((match for match, target in matches(text) if readable(match, target)), None)
    return "" if found is None else written(found)


def readable(match: Match[str], target: Any) -> bool:
    """Whether math-verify makes anything of a match; on the digits of other scripts it stumbles."""
    with suppress(SympifyError):
        return extract_match(match, target)[0] is not None
    return False


def matches(text: str) -> Iterator[tuple[Match[str], Any]]:
    """All matches of math-verify's patterns, in the order in which it tries them."""
    patterns = [(priority, regex, target) for rules, target in _PROSE for regex, priority in rules]
    for _, group in groupby(sorted(patterns, key=lambda row: row[0]), key=lambda row: row[0]):
        found = [(match, target) for _, regex, target in group for match in regex.finditer(text)]
        yield from sorted(found, key=lambda row: (row[0].end(), -row[0].start()), reverse=True)


def written(match: Match[str]) -> str:
    """What a match found: formulas joined by "and" become a list, a percent sign stays."""
    groups = {name: value for name, value in match.groupdict().items() if value}
    formulas = [value for name, value in groups.items() if "latex" in name]
    if not formulas:
        formulas = [
            "".join(groups[name] for name in groups if name.startswith(("expr", "integer", "decimal")))
        ]
    percent = any(name.endswith("percent") for name in groups)
    return ", ".join(formulas) + (r"\%" if percent else "")


def read(formula: str) -> Any | None:
    """Parse LaTeX without delimiters; math-verify needs them, and its timeouts would use SIGALRM."""
    found = parse(
        f"${formula}$".replace("{matrix}", "{pmatrix}"),
        _FORMULA,
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    return found[0] if found else None


def contradicted(wanted: Any, given: Any) -> bool:
    """Whether numbers refute an equality that math-verify found.

    math-verify calls a difference below 1e-15 zero, so that 2^-99 equals 2^-98, and two equations
    equal that both have no solution. Values at a sample point, compared by their ratio, tell.
    """
    if isinstance(wanted, Eq) and isinstance(given, Eq):
        return not proportional(wanted.lhs - wanted.rhs, given.lhs - given.rhs)
    if isinstance(wanted, Expr) and isinstance(given, Expr):
        left, right = sample(wanted, 0, given), sample(given, 0, wanted)
        return left is not None and right is not None and not close(left, right)
    return False


def proportional(left: Expr, right: Expr) -> bool:
    """Whether left = c x right at two sample points."""
    (a, b), (c, d) = ((sample(left, seed, right), sample(right, seed, left)) for seed in (0, 1))
    if a is None or b is None or c is None or d is None:
        return False
    return close(a * d, b * c)


def sample(expression: Expr, seed: int, other: Expr) -> Expr | None:
    """Value at a fixed point of the symbols of both, to 30 digits; None if it has no finite one."""
    symbols = sorted(expression.free_symbols | other.free_symbols, key=str)
    point = {symbol: Rational(7 + 4 * seed + 3 * rank, 5 + rank) for rank, symbol in enumerate(symbols)}
    with suppress(TypeError, ValueError, ArithmeticError):
        value = expression.subs(point).evalf(30)
        return value if value.is_number and value.is_finite else None
    return None


def close(left: Expr, right: Expr) -> bool:
    """Relative equality, in sympy's floats: their exponents have no bounds."""
    difference, *sizes = (abs(value).evalf(30) for value in (left - right, left, right))
    return bool(difference <= TOLERANCE * max(sizes))


if __name__ == "__main__":
    main()
