"""The whole plan of a run: what it does, what it needs, and whether that fits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from expert_iteration.choices import Device
from expert_iteration.config import RunConfig, members_of
from expert_iteration.planning import fit
from expert_iteration.planning.disk import DiskUse, disk_use
from expert_iteration.planning.machine import Machine
from expert_iteration.planning.memory import Process, host, processes
from expert_iteration.planning.odds import GroupOdds, Groups, Odds
from expert_iteration.planning.rehearsal import Counts, evenly, rehearse
from expert_iteration.planning.shapes import Found, shape_of
from expert_iteration.tokenizer import resolve_model


@dataclass(frozen=True)
class Forecast:
    """What happens if the answers are like `odds`."""

    odds: Odds
    group: GroupOdds
    counts: Counts


@dataclass(frozen=True)
class Needs:
    """What a model of known shape takes, in bytes."""

    processes: list[Process]
    host: dict[str, int]
    disk: DiskUse


@dataclass(frozen=True)
class Plan:
    config: RunConfig
    run_dir: Path
    machine: Machine
    model: Found
    forecasts: list[Forecast]
    """The first one is the one to plan with."""
    needs: Needs | None
    """None: nobody knows how large the model is."""

    @property
    def visits(self) -> int:
        """Of prompts."""
        return self.config.prompts_per_iteration * self.config.iterations

    @property
    def evaluated(self) -> int | None:
        """Questions of one evaluation, at most; None: all that there are."""
        limit = self.config.eval.limit
        return None if limit is None else limit * len(members_of(self.config.task))

    def problems(self) -> Iterator[str]:
        """What cannot fit, each with the keys and the remedy."""
        config, machine, needs = self.config, self.machine, self.needs
        yield from fit.too_few_devices(config, machine)
        if needs is None or self.model.shape is None:
            return
        yield from fit.too_full_devices(config, machine, needs.processes)
        yield from fit.too_small_cache(config, self.model.shape, needs.processes)
        yield from fit.too_little_memory(config, machine, needs.host)
        yield from fit.too_little_disk(config, machine, needs.disk)


def plan_of(config: RunConfig, run_dir: Path, machine: Machine, odds: Sequence[Odds]) -> Plan:
    """The plan of a run of which the answers are like one of `odds`.

    Raises:
        ConfigError: the model's folder is no model, or the run would wait for itself for ever.
    """
    groups, model = Groups(config), shape_of(resolve_model(config).model)
    forecasts = [forecast(config, groups, one) for one in (odds if groups.sampled else odds[:1])]
    return Plan(config, run_dir, machine, model, forecasts, _needs(config, model, machine, forecasts[0]))


def forecast(config: RunConfig, groups: Groups, odds: Odds) -> Forecast:
    group = groups.expect(odds)
    return Forecast(odds, group, rehearse(config, evenly(group.kept)))


def _needs(config: RunConfig, model: Found, machine: Machine, expected: Forecast) -> Needs | None:
    shape = model.shape
    if shape is None:
        return None
    on_cpu = config.placement.device is Device.cpu
    found = processes(config, shape, machine.memory if on_cpu else machine.gpu_memory)
    visits = config.iterations * config.prompts_per_iteration
    answers = visits * max(1.0, expected.group.sampled + expected.group.hinted)
    disk = disk_use(config, shape, expected.counts.checkpoints, answers, expected.odds.length)
    return Needs(found, host(config, shape, found), disk)
