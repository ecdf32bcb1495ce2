"""The door: a composed config becomes a checked `RunConfig`, before anything heavy is imported."""

import math
from typing import cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from expert_iteration.checks.learning import learning_problems
from expert_iteration.checks.naming import name_problems
from expert_iteration.checks.placing import gpus_here, placement_problems
from expert_iteration.checks.ranges import minima
from expert_iteration.checks.serving import serving_problems
from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.rounds import round_problems


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

    for key, value, low in minima(config):
        if value is not None and not low <= value < math.inf:
            raise ConfigError(f"{key} ({value}) must be a finite number, at least {low}.")
    for problem in (
        *task_problems(config.task),
        *learning_problems(config),
        *placement_problems(config, gpus_here() if gpus is None else gpus),
        *name_problems(config),
        *round_problems(config),
        *serving_problems(config),
    ):
        raise ConfigError(problem)
