r"""The program of a grading worker: math-verify in a process that may be killed at any time.

Run by pool.py as a plain script, so that it imports math-verify and nothing of this package. It reads
JSON pairs ``[answer, gold]`` from a connection and answers each with one word: correct, wrong,
unparsable (the answer), gold (the gold does not parse) or memory.
"""

import ctypes
import json
import logging
import math
import os
import resource
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Eq, Expr, Rational

MEMORY_BYTES = 1 << 30
ROUNDING = 12
"""Decimals that floats are compared to; math-verify's own 6 takes 3.1415927 for pi."""
TOLERANCE = 1e-12
PR_SET_PDEATHSIG = 1

# The whole text is one formula, and no unit is dropped: the parent has taken units and boxes off.
_LATEX = [
    LatexExtractionConfig(
        boxed_match_priority=-1,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
        ),
    )
]


def main() -> None:
    channel, parent, deadline = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    die_with(parent)
    judge("1+x", "x+1")
    limit_resources()
    with Connection(channel) as connection, suppress(EOFError, BrokenPipeError):
        connection.send_bytes(b"ready")
        while True:
            answer, gold = json.loads(connection.recv_bytes())
            limit_cpu(deadline)
            connection.send_bytes(judge(answer, gold).encode())


def judge(answer: str, gold: str) -> str:
    """Compare two formulas; gold goes first, because math-verify is not symmetric."""
    try:
        wanted = read(gold)
        if wanted is None:
            return "gold"
        given = read(answer)
        if given is None:
            return "unparsable"
        equal = verify(wanted, given, float_rounding=ROUNDING, timeout_seconds=None)
        return "correct" if equal and not contradicted(wanted, given) else "wrong"
    except MemoryError:
        return "memory"


def read(formula: str) -> Any | None:
    """Parse LaTeX without delimiters; math-verify needs them, and its timeouts would use SIGALRM."""
    found = parse(
        f"${formula}$",
        _LATEX,
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


def die_with(parent: int) -> None:
    """End when the parent does, however it ends, and leave Ctrl-C to it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def limit_resources() -> None:
    """No files, no children, bounded memory; the first to go when the machine runs out of it."""
    logging.disable(logging.CRITICAL)
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    for kind, value in limits.items():
        resource.setrlimit(kind, (value, value))


def limit_cpu(deadline: float) -> None:
    """Die of CPU time soon after the deadline, even if the parent is stopped and cannot kill."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = math.ceil(used.ru_utime + used.ru_stime + deadline) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
