"""Numbers of collecting and learning that cannot work together."""

from expert_iteration.algorithms import Keep, algorithm_of, may_stop_early, objective_of
from expert_iteration.choices import OnCollapse, Runtime, Start
from expert_iteration.config import RunConfig


def learning_problems(config: RunConfig) -> list[str]:
    """What cannot work, each with the way out."""
    return [
        *_algorithm_problems(config),
        *_reward_problems(config),
        *_batch_problems(config),
        *_mode_problems(config),
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


def _early_problems(config: RunConfig) -> list[str]:
    at_once, rollouts = config.sampling.at_once, config.rollouts_per_prompt
    if at_once is None or at_once == rollouts:
        return []
    if at_once > rollouts:
        return [f"sampling.at_once ({at_once}) exceeds rollouts_per_prompt ({rollouts}); lower the former."]
    if may_stop_early(config):
        return []
    return [
        f"sampling.at_once ({at_once}) ends the sampling at selection.top_k right answers, but here others "
        "might be kept: it takes an algorithm that keeps right ones, selection.top_k, strategy=top_k, "
        "prefer=first, no min_reward, and a reward that is the answer's alone; set it to null."
    ]


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
    found += _early_problems(config)
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
