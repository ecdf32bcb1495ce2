"""What a run does, in words and numbers."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from expert_iteration.config import RunConfig
from expert_iteration.planning.memory import push_bytes
from expert_iteration.planning.odds import Odds
from expert_iteration.planning.plan import Forecast, Plan
from expert_iteration.planning.tables import facts, numbers, size


def short_configuration(config: RunConfig) -> Table:
    """What people look at first."""
    return facts(
        {
            "task": f"{config.task.name}, answers of at most {config.sampling.max_tokens:,} tokens, "
            f"temperature {config.sampling.temperature:g}",
            "algorithm": _algorithm(config),
            "learning": _learning(config),
            "weights": _weights(config),
            "placement": _placement(config),
        }
    )


def _algorithm(config: RunConfig) -> str:
    selection = config.selection
    variant = f" ({config.algorithm.variant})" if config.algorithm.variant else ""
    kept = "all" if selection.top_k is None else f"at most {selection.top_k}"
    return (
        f"{config.algorithm.name}{variant}, may keep {kept} of {config.rollouts_per_prompt} "
        f"({selection.strategy.value}; duplicates: {selection.duplicates.value})"
    )


def _learning(config: RunConfig) -> str:
    options = config.optimizer
    return (
        f"AdamW at {options.learning_rate:g} ({options.schedule.value}), {counted(config.epochs, 'epoch')}, "
        f"batches of {config.batch_size}, micro-batches of {config.micro_batch_tokens:,} tokens"
    )


def _weights(config: RunConfig) -> str:
    model, mode = config.model, config.mode
    pushed = "after each iteration"
    if mode.publish_every is not None:
        pushed = f"every {mode.publish_every} steps, staleness at most {mode.max_staleness}"
    return (
        model.dtype.value
        + (", computed in bfloat16" if model.autocast else "")
        + (", gradient checkpointing" if model.gradient_checkpointing else "")
        + f"; engines in {model.engine_dtype.value}; pushed {pushed}"
    )


def _placement(config: RunConfig) -> str:
    place = config.placement
    engines = counted(place.infer.replicas, "engine")
    if place.infer.tensor_parallel > 1:
        engines += f" on {place.infer.tensor_parallel} devices each"
    shared = ", all on one GPU" if place.shared else ""
    nodes = f", over {place.nodes} nodes" if place.nodes > 1 else ""
    trainers = counted(place.train.devices, "trainer")
    return f"{place.device.value}, runtime {config.runtime.value}: {trainers}, {engines}{shared}{nodes}"


def work(plan: Plan) -> Table:
    """The arithmetic of a run."""
    first, checkpoints = plan.forecasts[0], plan.config.checkpoint
    kept = f"the last {checkpoints.keep_last}" + (" and the best" if checkpoints.keep_best else "")
    return facts(
        {
            "rollouts": _rollouts(plan, first),
            "learning rate": _learning_rate(plan.config, first),
            "pushes": _pushes(plan, first),
            "evaluations": _evaluations(plan, first),
            "checkpoints": f"{first.counts.checkpoints:,} written, {kept} kept",
        }
    )


def _rollouts(plan: Plan, first: Forecast) -> str:
    config, group = plan.config, first.group
    prompts, answers = config.prompts_per_iteration, config.rollouts_per_prompt
    times = f"in {counted(config.iterations, 'iteration')}"
    if group.sampled == 0:
        return f"none: {prompts:,} demonstrations an iteration, {plan.visits:,} {times}"
    words = (
        f"{prompts:,} prompts x {answers} answers = {prompts * answers:,} an iteration, "
        f"{plan.visits * answers:,} {times}"
    )
    more = round((group.sampled - answers) * plan.visits)
    if more > 0:
        words += f"; about {more:,} more, of other prompts (sampling.refill)"
    if more < 0:
        words += f"; about {-more:,} of them not, as others before were right (sampling.at_once)"
    if group.hinted:
        words += f"; about {group.hinted * plan.visits:,.0f} more with a hint, which may add to what is kept"
    return words


def _learning_rate(config: RunConfig, first: Forecast) -> str:
    counts = first.counts
    if not counts.steps:
        return "nothing is learned"
    rates, share = counts.rates, counts.warming / counts.steps
    return (
        f"{config.optimizer.schedule.value}: {rates[0]:.3g} at first, {max(rates):.3g} at most, "
        f"{rates[-1]:.3g} at last; {counts.warming:,} of {counts.steps:,} steps ({share:.1%}) warm up"
    )


def _pushes(plan: Plan, first: Forecast) -> str:
    words = f"{first.counts.pushes:,}"
    if plan.model.shape is None:
        return words
    engines = counted(plan.config.placement.infer.replicas, "engine")
    return f"{words}, {size(push_bytes(plan.config, plan.model.shape))} each, to {engines}"


def _evaluations(plan: Plan, first: Forecast) -> str:
    count, questions = first.counts.evaluations, plan.evaluated
    if questions is None:
        return f"{count:,}, each asks all questions of the evaluation set twice (greedy, sampled)"
    return (
        f"{count:,} x at most {questions:,} questions x 2 (greedy, sampled) = "
        f"{count * questions * 2:,} answers"
    )


def by_pass_rate(plan: Plan) -> RenderableType:
    """What comes out if the model answers more or fewer prompts right."""
    columns = ("right an iteration", "kept", "kept in all", "share", "steps", "samples learned")
    table = numbers("pass rate", "solved", *columns)
    for one in sorted(plan.forecasts, key=lambda one: one.odds.pass_rate):
        table.add_row(*_row(plan, one))
    return Group(table, Text(_premise(plan), style="dim"))


def _row(plan: Plan, one: Forecast) -> list[str]:
    prompts = plan.config.prompts_per_iteration
    answers = plan.visits * (min(plan.config.rollouts_per_prompt, one.group.sampled) or 1)
    rate = one.odds.pass_rate if one.group.sampled else 1.0
    mark = "*" if one is plan.forecasts[0] and len(plan.forecasts) > 1 else " "
    return [
        f"{rate:.0%}{mark}",
        f"{one.group.solved:.0%}",
        f"{answers / plan.config.iterations * rate:,.0f}",
        f"{one.group.kept * prompts:,.0f}",
        f"{one.counts.kept:,}",
        f"{one.counts.kept / answers:.0%}",
        f"{one.counts.steps:,}",
        f"{one.counts.used:,}",
    ]


def _premise(plan: Plan) -> str:
    first = plan.forecasts[0]
    chosen = "* is what the rest of this plan is for. " if len(plan.forecasts) > 1 else ""
    if not first.group.sampled:
        return "Every demonstration is learned."
    if first.odds.length is None:
        return (
            f"{chosen}All prompts are taken to be alike, and all right answers different. Real prompts "
            "differ and answers repeat, so that less is kept as a rule; --like RUN plans with what a run "
            "measured."
        )
    return _measured(first.odds, first.odds.length)


def _measured(odds: Odds, length: float) -> str:
    return (
        f"As measured: pass rates with a spread of {odds.spread:.2f} (0: all prompts alike, 1: always or "
        f"never right), {odds.variety:.0%} of a prompt's further right answers are new, {length:,.0f} tokens "
        "an answer."
    )


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
