"""Which setting of a sweep was best, and how sure that is."""

import math
import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from expert_iteration.reporting.statistics import Z_95, wilson
from expert_iteration.reports.sweep_axes import REPEATS, Axis, value_of
from expert_iteration.reports.sweep_runs import SweepRun, Value

MEASURES = {"eval/greedy": "greedy", "eval/pass@1": "pass@1"}
"""What settings are ranked by, the first first, and how it is called."""
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Two-sided 95% quantiles of Student's t for 1 to 10 degrees of freedom."""


@dataclass(frozen=True)
class Estimate:
    """A share in [0, 1] with its 95% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed."""

    values: tuple[Value, ...]
    """Of the axes."""
    runs: tuple[SweepRun, ...]

    def estimate(self, measure: str) -> Estimate | None:
        """At the end of training; None where a run did not measure it."""
        finals = [run.final(measure) for run in self.runs]
        known = [value for value in finals if value is not None]
        return estimate(known, self.runs[0].questions) if len(known) == len(finals) else None


def estimate(shares: Sequence[float], questions: int) -> Estimate | None:
    """Several shares: their mean with Student's interval. One: Wilson's, of that many questions."""
    if not shares:
        return None
    mean = fmean(shares)
    if len(shares) == 1:
        return Estimate(mean, *(wilson(mean, questions) if questions else (mean, mean)))
    margin = t_95(len(shares) - 1) * stdev(shares) / math.sqrt(len(shares))
    return Estimate(mean, max(0.0, mean - margin), min(1.0, mean + margin))


def t_95(freedom: int) -> float:
    """Two-sided 95% quantile of Student's t.

    Beyond the table by the expansion in 1/freedom (Abramowitz and Stegun 1964, 26.7.5), true to 0.1%.
    """
    if freedom <= len(T_95):
        return T_95[freedom - 1]
    first = (Z_95**3 + Z_95) / 4
    second = (5 * Z_95**5 + 16 * Z_95**3 + 3 * Z_95) / 96
    return Z_95 + first / freedom + second / freedom**2


def ranked(runs: Sequence[SweepRun], axes: Sequence[Axis]) -> list[Group]:
    """The settings, best first; those without an evaluation last."""
    together: dict[tuple[Value, ...], list[SweepRun]] = defaultdict(list)
    for run in runs:
        together[tuple(value_of(run, axis.key) for axis in axes)].append(run)
    groups = [Group(values, tuple(same)) for values, same in together.items()]
    return sorted(groups, key=_merit, reverse=True)


def rivals(groups: Sequence[Group]) -> list[Group]:
    """The settings whose interval meets that of the first, which is not one of them."""
    best, *others = groups
    top = best.estimate(next(iter(MEASURES)))
    found = [(group, group.estimate(next(iter(MEASURES)))) for group in others]
    return [group for group, own in found if top and own and own.high >= top.low]


def command(group: Group) -> str:
    """What starts a run of this setting, for a shell."""
    overrides = [
        override
        for override in group.runs[0].job.overrides
        if override.lstrip("+").partition("=")[0] not in REPEATS
    ]
    return shlex.join(["python", "scripts/train.py", *overrides])


def _merit(group: Group) -> tuple[float, ...]:
    estimates = [group.estimate(measure) for measure in MEASURES]
    return tuple(-1.0 if one is None else one.mean for one in estimates)
