"""The numbers of the scheduler's laws, from a configuration."""

from expert_iteration.algorithms import Source, algorithm_of
from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.scheduler import Laws


def laws_of(config: RunConfig) -> Laws:
    """What the scheduler needs to know of a configuration.

    Raises:
        ConfigError: collectors and learner could wait for each other for ever.
    """
    mode = config.mode
    sampled = algorithm_of(config).source is Source.POLICY
    answers = config.rollouts_per_prompt if sampled else 1
    laws = Laws(
        iterations=config.iterations,
        groups_per_iteration=config.prompts_per_iteration,
        batch_size=config.batch_size,
        uses_per_group=config.epochs * min(config.selection.top_k or answers, answers),
        max_staleness=mode.max_staleness,
        publish_every=mode.publish_every,
        min_uses=mode.min_buffer * config.epochs,
        groups_per_request=mode.prompts_per_request,
        replicas=config.placement.infer.replicas,
    )
    if mode.publish_every is not None and laws.steps_held > mode.max_staleness * mode.publish_every:
        raise ConfigError(
            f"mode.max_staleness ({mode.max_staleness}) x mode.publish_every ({mode.publish_every}) must be "
            f"at least {laws.steps_held}: mode.min_buffer ({mode.min_buffer}) and one request of "
            f"mode.prompts_per_request ({laws.request_size}) prompts can hold that many optimizer steps; "
            "raise the former or lower the latter."
        )
    return laws
