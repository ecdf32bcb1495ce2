"""Simulated runs on the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from expert_iteration.config import RunConfig
from expert_iteration.planning.tables import facts, heading, numbers
from expert_iteration.simulation.hardware import Accelerator, Assumptions
from expert_iteration.simulation.outcome import WAITING, Outcome
from expert_iteration.simulation.rates import Rates
from expert_iteration.simulation.split import Split

PHASES = (WAITING, "learn", "publish", "evaluate", "save")
RUNNERS_UP = 4
"""Splits shown beside the best one."""


def outcomes(rows: Mapping[str, Outcome]) -> Table:
    """A line for each simulated run, by its name; seconds are those of an iteration."""
    table = numbers("", "seconds", *PHASES, "idle", "bottleneck", left=1)
    for name, found in rows.items():
        cells = [f"{found.phases.get(phase, 0.0) / len(found.iterations):,.1f}" for phase in PHASES]
        table.add_row(name, f"{found.seconds:,.1f}", *cells, f"{found.gpu_idle:.0%}", found.bottleneck)
    return table


def suggestion(
    config: RunConfig, gpu: Accelerator, ranked: Sequence[tuple[Split, Outcome]]
) -> RenderableType:
    """The best split, the runners-up, and what to type."""
    shown = ranked[: 1 + RUNNERS_UP]
    best = ranked[0][0]
    note = (
        f"Simulated for GPUs like {gpu.name}: predicted from data sheets and assumptions, measured on none. "
        "Seconds of an iteration; `sample` is what the learner waits for answers."
    )
    return Group(
        heading("best split"),
        outcomes({named(split): found for split, found in shown}),
        Text(f"\n{best.overrides(config)}"),
        Text(note, style="dim"),
    )


def named(split: Split) -> str:
    words = f"{split.train} train, {split.replicas} infer"
    return words + (f", {split.references} reference" if split.references else "")


def rates(found: Rates) -> Table:
    """What the simulation counts with."""
    return facts(
        {
            "decode step": f"{found.step * 1e3:,.3f} ms, and {found.answer * 1e6:,.2f} us for each answer "
            f"in it, but {found.floor * 1e6:,.2f} us for each at least; {found.room} answers at once",
            "prompt": f"{found.prompt * 1e3:,.3f} ms of prefill; {found.prompt_tokens:,.0f} tokens",
            "answer": f"{found.judge * 1e3:,.3f} ms to judge and store, "
            f"{found.score * 1e6:,.2f} us a token to score",
            "learning": f"{found.learn * 1e3:,.2f} ms a step, "
            f"{found.position * 1e6:,.2f} us a token of a rank",
            "order": f"{found.order * 1e3:,.1f} ms",
            "push": f"{found.publish:,.2f} s",
            "checkpoint": f"{found.save:,.2f} s",
        }
    )


def premises(gpu: Accelerator, given: Assumptions) -> Table:
    """Data sheet and assumptions."""
    return facts(
        {
            gpu.name: f"{gpu.bfloat16 / 1e12:,.0f} TFLOP/s in bfloat16, {gpu.float32 / 1e12:g} in float32, "
            f"memory {gpu.bandwidth / 1e9:,.0f} GB/s, links {gpu.link / 1e9:,.0f}, host "
            f"{gpu.host / 1e9:,.0f}, network {gpu.network / 1e9:,.0f} GB/s ({gpu.source})",
            "assumed": ", ".join(f"{name} {value:g}" for name, value in vars(given).items()),
        }
    )
