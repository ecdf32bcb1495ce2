"""A run on paper, and what it would have taken."""

import asyncio
from dataclasses import dataclass, replace

from expert_iteration.config import RunConfig
from expert_iteration.laws import laws_of
from expert_iteration.scheduler import Progress, Scheduler
from expert_iteration.simulation.clock import in_no_time
from expert_iteration.simulation.rates import Rates
from expert_iteration.simulation.stages import SimulatedStages
from expert_iteration.simulation.workload import Workload

WAITING = "sample"
"""The phase in which the learner's side waits for answers."""


@dataclass(frozen=True)
class Outcome:
    """What a simulated run took."""

    iterations: tuple[float, ...]
    """Seconds of each."""
    phases: dict[str, float]
    """Seconds of the whole run that the learner's side spent on each; they add up to all of it."""
    idle: dict[str, float]
    """Share of the time in which the trainers, engines and references had nothing to compute."""
    gpu_idle: float
    """Likewise of all devices together."""
    bottleneck: str

    @property
    def seconds(self) -> float:
        """Of an iteration, on average."""
        return sum(self.iterations) / len(self.iterations)


def simulate(config: RunConfig, rates: Rates, workload: Workload, iterations: int | None = None) -> Outcome:
    """Run `config` on paper, from the first iteration on, without start-up and first evaluation.

    Args:
        iterations: as many, instead of config.iterations.

    Raises:
        ConfigError: collectors and learner could wait for each other for ever.
    """
    shorter = config if iterations is None else replace(config, iterations=iterations)
    return in_no_time(_run(shorter, rates, workload))


async def _run(config: RunConfig, rates: Rates, workload: Workload) -> Outcome:
    laws, progress = laws_of(config), Progress()
    stages = SimulatedStages(config, rates, workload, progress)
    engines = [asyncio.create_task(engine.run()) for engine in stages.engines]
    await Scheduler(laws, stages, progress, range(laws.groups)).run()
    for engine in engines:
        engine.cancel()
    stages.close()
    return _outcome(config, rates, workload, stages)


def _outcome(config: RunConfig, rates: Rates, workload: Workload, stages: SimulatedStages) -> Outcome:
    total = stages.ended[-1]
    phases = {WAITING: total - sum(stages.phases.values()), **stages.phases}
    place, sampled = config.placement, sum(engine.busy for engine in stages.engines)
    references = len(stages.references)
    idle = {"train": 1 - stages.trained / total, "infer": 1 - sampled / (total * len(stages.engines))}
    if references:
        idle["reference"] = 1 - stages.scored / (total * references)
    shares = {
        "train": place.train.devices,
        "infer": len(stages.engines) * place.infer.tensor_parallel,
        "reference": references,
    }
    devices = 1 if place.shared else sum(shares.values())
    work = sum((1 - idle[role]) * shares[role] for role in idle)
    return Outcome(
        iterations=tuple(end - begin for begin, end in zip([0.0, *stages.ended], stages.ended, strict=False)),
        phases=phases,
        idle=idle,
        gpu_idle=1 - work / devices,
        bottleneck=_bottleneck(config, rates, workload, phases, stages),
    )


def _bottleneck(
    config: RunConfig, rates: Rates, workload: Workload, phases: dict[str, float], stages: SimulatedStages
) -> str:
    """What most of the time goes into, and what of it."""
    phase = max(phases, key=lambda name: phases[name])
    if phase == WAITING:
        longest = workload.of(0).lengths.longest * rates.decode(1) * config.iterations
        return "the longest answer" if longest > phases[phase] / 2 else "sampling"
    if phase == "learn":
        fixed = rates.learn * stages.steps
        return "AdamW, gradient sums" if fixed > phases[phase] / 2 else "forward and backward"
    return {"publish": "pushes", "evaluate": "evaluations", "save": "checkpoints"}[phase]
