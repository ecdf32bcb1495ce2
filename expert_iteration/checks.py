"""The door: a composed config becomes a checked `RunConfig`, before anything heavy is imported."""

import math
import re
from pathlib import Path
from reprlib import repr as short
from typing import cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from expert_iteration.algorithms import Keep, algorithm_of, needs_reference, objective_of
from expert_iteration.choices import OnCollapse, Runtime, Sharding, Start
from expert_iteration.config import ConfigError, RunConfig, members_of
from expert_iteration.placement.bundles import bundles_of, total
from expert_iteration.rounds import round_minima, round_problems
from expert_iteration.serving import serving_minima, serving_problems

RUN_NAME = re.compile(r"(?!\.+\Z)[A-Za-z0-9._-]{1,64}")


def from_hydra(composed: DictConfig, gpus: int | None = None) -> RunConfig:
    """Turn a composed config into a checked `RunConfig`.

    Args:
        gpus: of the machine that it is for; None: those of this one.

    Raises:
        ConfigError: a value is missing, has the wrong type, or a combination cannot work.
    """
    try:
        config = cast(RunConfig, OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    check(config, gpus)
    return config


def check(config: RunConfig, gpus: int | None = None) -> None:
    """Refuse what cannot work on a machine with `gpus` (None: this one), before any model is loaded.

    Raises:
        ConfigError: naming the keys, their values and the remedy.
    """
    # the styles of answers come with the whole grader, which --help and --cfg do without
    from expert_iteration.data.settings import task_problems

    for key, value, low in _minima(config):
        if value is not None and not low <= value < math.inf:
            raise ConfigError(f"{key} ({value}) must be a finite number, at least {low}.")
    for problem in (
        *task_problems(config.task),
        *_algorithm_problems(config),
        *_reward_problems(config),
        *_batch_problems(config),
        *_mode_problems(config),
        *_placement_problems(config, gpus_here() if gpus is None else gpus),
        *_sharding_problems(config),
        *_name_problems(config),
        *round_problems(config),
        *serving_problems(config),
    ):
        raise ConfigError(problem)


def _minima(config: RunConfig) -> list[tuple[str, float | None, float]]:
    """(key, value, smallest value that makes sense)."""
    return [
        ("seed", config.seed, 0),
        ("iterations", config.iterations, 1),
        ("prompts_per_iteration", config.prompts_per_iteration, 1),
        ("rollouts_per_prompt", config.rollouts_per_prompt, 1),
        ("epochs", config.epochs, 1),
        ("batch_size", config.batch_size, 1),
        ("micro_batch_tokens", config.micro_batch_tokens, 1),
        ("mode.max_staleness", config.mode.max_staleness, 0),
        ("mode.publish_every", config.mode.publish_every, 1),
        ("mode.min_buffer", config.mode.min_buffer, 1),
        ("mode.prompts_per_request", config.mode.prompts_per_request, 1),
        *((f"{key}.limit", dataset.limit, 1) for key, _, dataset in members_of(config.task)),
        ("task.max_tokens", config.task.max_tokens, 1),
        ("sampling.temperature", config.sampling.temperature, 0),
        ("sampling.min_tokens", config.sampling.min_tokens, 0),
        ("sampling.refill", config.sampling.refill, 0),
        ("rationalisation.max_share", config.rationalisation.max_share, 0),
        ("values.samples", config.values.samples, 1),
        ("values.beta", config.values.beta, 1e-6),
        ("prompts.retest_every", config.prompts.retest_every, 1),
        ("prompts.park_after", config.prompts.park_after, 1),
        ("prompts.retry_every", config.prompts.retry_every, 1),
        ("health.temperature_factor", config.health.temperature_factor, 1),
        ("health.patience", config.health.patience, 1),
        ("health.verify_push_every", config.health.verify_push_every, 0),
        ("health.max_mismatch", config.health.max_mismatch, 0),
        ("sampling.max_tokens", config.sampling.max_tokens, 1),
        ("grading.workers", config.grading.workers, 1),
        ("grading.deadline", config.grading.deadline, 0.1),
        ("reward.format", config.reward.format, 0),
        ("reward.brevity", config.reward.brevity, 0),
        ("reward.variety", config.reward.variety, 0),
        ("selection.top_k", config.selection.top_k, 1),
        ("loss.kl_coefficient", config.loss.kl_coefficient, 0),
        ("loss.length_divisor", config.loss.length_divisor, 1),
        ("loss.clip", config.loss.clip, 0),
        ("loss.clip_high", config.loss.clip_high, 0),
        ("loss.importance_cap", config.loss.importance_cap, 1),
        ("loss.beta", config.loss.beta, 0),
        ("optimizer.learning_rate", config.optimizer.learning_rate, 0),
        ("optimizer.weight_decay", config.optimizer.weight_decay, 0),
        ("optimizer.warmup_steps", config.optimizer.warmup_steps, 0),
        ("optimizer.max_grad_norm", config.optimizer.max_grad_norm, 0),
        ("model.lora.rank", config.model.lora.rank, 0),
        ("model.lora.alpha", config.model.lora.alpha, 1),
        ("buffer.capacity", config.buffer.capacity, 1),
        ("buffer.priority_alpha", config.buffer.priority_alpha, 0),
        ("buffer.priority_beta", config.buffer.priority_beta, 0),
        ("placement.nodes", config.placement.nodes, 1),
        ("placement.train.devices", config.placement.train.devices, 1),
        ("placement.train.threads", config.placement.train.threads, 1),
        ("placement.infer.replicas", config.placement.infer.replicas, 1),
        ("placement.infer.tensor_parallel", config.placement.infer.tensor_parallel, 1),
        ("placement.infer.threads", config.placement.infer.threads, 1),
        ("placement.reference.devices", config.placement.reference.devices, 1),
        ("eval.every", config.eval.every, 0),
        ("eval.limit", config.eval.limit, 1),
        *round_minima(config.eval),
        *serving_minima(config),
        ("checkpoint.every", config.checkpoint.every, 0),
        ("checkpoint.keep_last", config.checkpoint.keep_last, 2),
        ("optimizer.spike_factor", config.optimizer.spike_factor, 1),
        ("optimizer.max_skipped", config.optimizer.max_skipped, 1),
        ("logger.rollout_rows", config.logger.rollout_rows, 0),
        ("ray.max_restarts", config.ray.max_restarts, 0),
    ]


def _algorithm_problems(config: RunConfig) -> list[str]:
    objective, hint, table = objective_of(config), config.rationalisation.hint, config.adaptive.table
    found = []
    if algorithm_of(config).keep is Keep.GROUPS and config.rollouts_per_prompt < 2:
        found.append(
            f"rollouts_per_prompt ({config.rollouts_per_prompt}) must be at least 2: algorithm.name="
            f"{config.algorithm.name} compares the answers to a question with each other."
        )
    if config.rationalisation.enabled and "{gold}" not in hint:
        found.append(
            f"rationalisation.hint ({hint!r}) does not hold {{gold}}, where the right answer belongs; "
            "write it in."
        )
    if objective.off_policy and config.health.on_collapse is OnCollapse.raise_temperature:
        found.append(
            "health.on_collapse=raise_temperature changes the policy that samples, and importance weights "
            "compare it with the trained one; use stop or warn."
        )
    if config.adaptive.enabled and (not table or table[-1].at_most is not None):
        found.append(
            "adaptive.table must end with a row whose at_most is null, for every larger number of samples."
        )
    return found + [
        f"{key} needs the iterations of mode=sync: {why}; use mode=sync."
        for key, chosen, why in _synchronous_only(config)
        if chosen and config.mode.publish_every is not None
    ]


def _synchronous_only(config: RunConfig) -> list[tuple[str, bool, str]]:
    """(key, whether it is chosen, why it has no meaning in asynchronous training)."""
    return [
        ("algorithm.start=initial", config.algorithm.start is Start.initial, "each trains anew"),
        (
            "algorithm.accumulate=true",
            config.algorithm.accumulate,
            "mode.max_staleness would drop the samples of earlier ones",
        ),
        (
            "adaptive.enabled=true",
            config.adaptive.enabled,
            "the samples of one are counted before it is learned",
        ),
    ]


def _reward_problems(config: RunConfig) -> list[str]:
    reward = config.reward
    total = round(reward.format + reward.brevity + reward.variety, 9)
    if total <= 0.5:
        return []
    return [
        f"reward.format + reward.brevity + reward.variety ({total:g}) exceeds 0.5: how an answer is given "
        "would count for more than whether it is right; lower them."
    ]


def most_kept(config: RunConfig) -> int:
    """Upper bound of the samples one iteration can keep."""
    per_prompt = config.selection.top_k or config.rollouts_per_prompt
    return config.prompts_per_iteration * min(per_prompt, config.rollouts_per_prompt)


def _batch_problems(config: RunConfig) -> list[str]:
    top_k, rollouts = config.selection.top_k, config.rollouts_per_prompt
    found = []
    if top_k is not None and top_k > rollouts:
        found.append(
            f"selection.top_k ({top_k}) exceeds rollouts_per_prompt ({rollouts}); "
            "raise the latter or keep fewer."
        )
    if config.batch_size > most_kept(config):
        found.append(
            f"batch_size ({config.batch_size}) exceeds what one iteration can keep ({most_kept(config)} = "
            f"prompts_per_iteration {config.prompts_per_iteration} x at most {top_k or rollouts} each); "
            "lower batch_size or collect more."
        )
    if config.batch_size < config.placement.train.devices:
        found.append(
            f"batch_size ({config.batch_size}) is below placement.train.devices "
            f"({config.placement.train.devices}); every rank needs a sequence: raise batch_size."
        )
    if config.buffer.capacity < most_kept(config):
        found.append(
            f"buffer.capacity ({config.buffer.capacity}) is below what one iteration can keep "
            f"({most_kept(config)}); raise it, or samples would be overwritten unread."
        )
    if config.sampling.min_tokens > config.sampling.max_tokens:
        found.append(
            f"sampling.min_tokens ({config.sampling.min_tokens}) exceeds sampling.max_tokens "
            f"({config.sampling.max_tokens}); lower the former."
        )
    if config.sampling.max_tokens >= config.model.max_length:
        found.append(
            f"sampling.max_tokens ({config.sampling.max_tokens}) leaves no room for a prompt in "
            f"model.max_length ({config.model.max_length}); lower the former or raise the latter."
        )
    return found


def _mode_problems(config: RunConfig) -> list[str]:
    mode, found = config.mode, []
    if mode.max_staleness == 0 and mode.publish_every is not None:
        found.append(
            f"mode.publish_every ({mode.publish_every}) needs mode.max_staleness of at least 1 (it is 0): a "
            "push in the middle of an iteration makes its other samples stale. Use mode=async, or "
            "mode.publish_every=null."
        )
    if mode.max_staleness > 0 and mode.publish_every is None:
        found.append(
            f"mode.max_staleness ({mode.max_staleness}) needs mode.publish_every (it is null): say after how "
            "many optimizer steps new weights are pushed."
        )
    if config.runtime is Runtime.local and mode.max_staleness > 0:
        found.append(
            f"runtime=local is synchronous only, but mode.max_staleness is {mode.max_staleness}; "
            "use mode=sync or placement=cpu."
        )
    return found


def _placement_problems(config: RunConfig, there: int) -> list[str]:
    placement, found = config.placement, []
    ranks = {
        "placement.train.devices": placement.train.devices,
        "placement.infer.replicas": placement.infer.replicas,
        "placement.reference.devices": placement.reference.devices,
    }
    for key, count in ranks.items():
        if config.runtime is Runtime.local and count > 1:
            found.append(f"{key} ({count}) needs processes, but runtime is local; use placement=cpu.")
        if placement.shared and count > 1:
            found.append(f"{key} ({count}) cannot share one GPU; use placement=split.")
    if placement.shared and placement.infer.tensor_parallel > 1:
        found.append(
            f"placement.infer.tensor_parallel ({placement.infer.tensor_parallel}) needs as many GPUs, but "
            "placement.shared is true; use placement=split."
        )
    if placement.nodes > 1 and config.ray.address is None:
        found.append(
            f"placement.nodes ({placement.nodes}) needs a cluster, but ray.address is null; name it, as "
            "placement=cluster does, or use placement.nodes=1."
        )
    # what the nodes of a cluster have is known once they are joined
    if config.ray.address is None and (needed := gpus_needed(config)) > there:
        found.append(
            f"placement needs {needed} GPUs (train {placement.train.devices}, infer "
            f"{placement.infer.replicas} x {placement.infer.tensor_parallel}, reference "
            f"{placement.reference.devices if needs_reference(config) else 0}), but this machine has "
            f"{there}; lower them, or use placement=one_gpu or placement=cpu."
        )
    return found


def _sharding_problems(config: RunConfig) -> list[str]:
    train, found = config.placement.train, []
    if train.sharding is Sharding.full and config.runtime is Runtime.local:
        found.append(
            "placement.train.sharding=full needs the processes of runtime=ray, but runtime is local; use "
            "placement=cpu, or placement.train.sharding=none."
        )
    if train.cpu_offload and train.sharding is Sharding.none:
        found.append(
            "placement.train.cpu_offload=true moves the parts of sharded weights, but "
            "placement.train.sharding is none; use full."
        )
    return found


def _name_problems(config: RunConfig) -> list[str]:
    """Names become parts of paths and addresses elsewhere."""
    names = {key: getattr(config.logger, key) for key in ("project", "group", "name")}
    return [
        f"logger.{key} ({short(name)}) must be 1 to 64 letters, digits, dots, dashes or underscores, and not "
        "dots alone; choose a name such as demo-seed0."
        for key, name in names.items()
        if name is not None and not RUN_NAME.fullmatch(name)
    ]


def gpus_needed(config: RunConfig) -> int:
    """On all nodes."""
    return total(bundles_of(config))[0]


def gpus_here() -> int:
    """NVIDIA GPUs of this machine, counted without loading torch."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
