"""A plan on the terminal: what the run does, what it needs, and a box for each device."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import ceil

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from expert_iteration.choices import Runtime
from expert_iteration.placement.bundles import amount, bundles_of, total
from expert_iteration.placement.nodes import spread
from expert_iteration.planning.disk import LENGTH
from expert_iteration.planning.memory import GIB, MIB, Process, cache_bytes_per_token
from expert_iteration.planning.plan import Needs, Plan
from expert_iteration.planning.summary import by_pass_rate, counted, work
from expert_iteration.planning.tables import facts, heading, numbers, size
from expert_iteration.reporting.text import one_line

COLUMNS = ("weights", "gradients", "moments", "copies", "activations", "logits", "KV cache", "other")
"""Of the table of memory; `copies` are those that autocast makes of the weights, or that ranks gather."""
BAR = 24
"""Characters of the bar that shows how full a device is."""
BOX = 72
"""Characters of a box."""


def drawn(plan: Plan) -> RenderableType:
    """All of it but the configuration."""
    parts: list[RenderableType] = [heading("what it does"), work(plan)]
    parts += [heading("by pass rate"), by_pass_rate(plan), heading("model"), _model(plan)]
    if (needs := plan.needs) is not None:
        unit = GIB if any(process.total >= GIB for process in needs.processes) else MIB
        parts += [heading("memory, GiB" if unit == GIB else "memory, MiB"), _memory(needs, unit)]
        parts += [heading("placement"), _placement(plan, needs), heading("disk"), _disk(plan, needs)]
    return Group(*parts)


def _model(plan: Plan) -> Table:
    shape, origin = plan.model.shape, one_line(plan.model.origin)
    rows = {"path": one_line(plan.config.model.path), "parameters": f"unknown: {origin}"}
    if shape is not None:
        rows["parameters"] = (
            f"{shape.parameters:,} ({shape.family}: {shape.layers} layers of {shape.hidden:,}, {shape.heads} "
            f"heads, {shape.kv_heads} of keys, vocabulary {shape.vocabulary:,}"
            + (", output tied)" if shape.tied else ")")
        )
        rows["read from"] = origin
    return facts(rows)


def _memory(needs: Needs, unit: int) -> RenderableType:
    used = [name for name in COLUMNS if any(name in process.parts for process in needs.processes)]
    table = numbers("process", "on", *used, "sum", left=2)
    for process in _distinct(needs.processes):
        cells = [f"{process.parts[name] / unit:,.2f}" if name in process.parts else "" for name in used]
        table.add_row(process.name, process.device, *cells, f"{process.total / unit:,.2f}")
    note = (
        "Activations, logits and other are estimates for the largest micro-batch; the rest is computed. The "
        "trained weights are the master weights: there is no other copy."
    )
    return Group(table, Text(note, style="dim"))


def _distinct(found: Sequence[Process]) -> Iterable[Process]:
    """All of them; of a cluster, one for those that are alike, which says how many they are."""
    if all(process.node == 0 for process in found):
        return found
    alike: dict[tuple[str, int], list[Process]] = {}
    for process in found:
        alike.setdefault((process.name.split()[0], process.total), []).append(process)
    return [
        replace(group[0], name=counted(len(group), role), device="GPU" if "GPU" in group[0].device else "CPU")
        for (role, _), group in alike.items()
    ]


def _placement(plan: Plan, needs: Needs) -> RenderableType:
    """A box for each device, the host last; of a cluster, its nodes and a box for each kind of device."""
    several = plan.config.placement.nodes > 1
    boxes: list[RenderableType] = [_nodes(plan)] if several else []
    for device, alike in _kinds(needs.processes, several):
        here = {process.name: process.total for process in needs.processes if process.device == device}
        cache = _cache(plan, needs.processes, device)
        boxes.append(_box(device + alike, here, plan.machine.gpu_memory, "--memory", cache))
    title = "host of node 0" if several else "host"
    if plan.config.runtime is Runtime.local:
        title = "host, all in one process"
    cache = _cache(plan, needs.processes, "CPU")
    boxes.append(_box(title, needs.host, plan.machine.memory, "--ram", cache))
    return Group(*boxes)


def _nodes(plan: Plan) -> Table:
    """What is on each node, as far as it can be known before the nodes are there."""
    bundles, count = bundles_of(plan.config), plan.config.placement.nodes
    nodes = spread(bundles, count)
    rows = {}
    for node in range(count):
        here = [bundle for bundle, where in zip(bundles, nodes, strict=True) if where == node]
        roles = Counter(seat.part.split()[0] for bundle in here for seat in bundle.seats)
        parts = ", ".join(counted(number, role) for role, number in roles.items())
        rows[f"node {node}"] = f"{amount(*total(here))}: {parts}"
    return facts(rows)


def _kinds(found: Sequence[Process], several: bool) -> list[tuple[str, str]]:
    """Each GPU; of a cluster, one for all that hold the same, and how many others do."""
    gpus: dict[str, list[Process]] = {}
    for process in found:
        if process.device != "CPU":
            gpus.setdefault(process.device, []).append(process)
    if not several:
        return [(gpu, "") for gpu in gpus]
    kinds: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for gpu, held in gpus.items():
        kind = tuple((process.name.split()[0], process.total) for process in held)
        kinds.setdefault(kind, []).append(gpu)
    return [(first, f" and {len(others)} like it" if others else "") for first, *others in kinds.values()]


def _box(title: str, inside: dict[str, int], room: int | None, option: str, below: str) -> Panel:
    """What sits on a device of `room` bytes, and how full it is; `option` would tell an unknown size."""
    total = sum(inside.values())
    rows = facts({name: f"{part / GIB:8,.2f} GiB" for name, part in inside.items()})
    if room is None:
        fill = f"{total / GIB:,.2f} GiB, of an unknown size: {option} tells it"
    else:
        full = min(BAR, ceil(BAR * total / room))
        fill = f"[{'#' * full}{'.' * (BAR - full)}] {total / GIB:,.2f} of {room / GIB:,.2f} GiB"
    lines = [Text(line) for line in (fill, below) if line]
    return Panel(Group(rows, *lines), title=title, title_align="left", width=BOX)


def _cache(plan: Plan, found: Iterable[Process], device: str) -> str:
    """What the KV cache of the engine on `device` holds."""
    shape, length = plan.model.shape, plan.config.model.max_length
    for process in found:
        if shape is not None and process.device == device and "KV cache" in process.parts:
            tokens = process.parts["KV cache"] // cache_bytes_per_token(shape, plan.config)
            return f"KV cache of {process.name}: {tokens:,} tokens, {tokens / length:,.1f} times {length:,}"
    return ""


def _disk(plan: Plan, needs: Needs) -> Table:
    disk, length = needs.disk, plan.forecasts[0].odds.length
    how = "answers as long as measured"
    if length is None:
        how = f"if an answer takes {LENGTH:.0%} of sampling.max_tokens"
    free = "" if plan.machine.disk is None else f"; {size(plan.machine.disk)} are free"
    return facts(
        {
            "run folder": one_line(str(plan.run_dir)),
            "checkpoints": f"{size(disk.checkpoint)} each: weights, two moments, ledger"
            + (", samples" if disk.samples else "")
            + f"; {disk.kept} in the end",
            "rollouts": f"about {size(disk.rollouts)}, {how}",
            "in all": f"{size(disk.end)} in the end, {size(disk.most)} while a checkpoint is written{free}",
        }
    )
