"""What Hydra calls before a sweep: a launcher that is not installed is refused, and the folder noted."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from expert_iteration.config import ConfigError
from expert_iteration.reporting.text import one_line

EXIT_CONFIGURATION = 2
EXTRAS = {
    "hydra_joblib_launcher": "joblib",
    "hydra_submitit_launcher": "submitit",
    "hydra_optuna_sweeper": "optuna",
}
"""Plugin of Hydra -> the extra of this package that installs it."""


class Sweeping(Callback):
    """The callback of config/hydra/callbacks/sweep.yaml."""

    folder: ClassVar[Path | None] = None
    """Of the sweep that this process has begun. Hydra does not tell how a sweep with a failed job ended."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        try:
            refuse_missing_plugin(config.hydra)
        except ConfigError as error:  # Hydra would turn it into a warning
            sys.stderr.write(f"error: {one_line(str(error))}\n")
            raise SystemExit(EXIT_CONFIGURATION) from None
        Sweeping.folder = Path(str(config.hydra.sweep.dir)).absolute()


def is_installed(plugin: str) -> bool:
    return find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{plugin}") is not None


def refuse_missing_plugin(hydra: Any, installed: Callable[[str], bool] = is_installed) -> None:
    """
    Args:
        hydra: the section of that name.
        installed: whether a plugin is.

    Raises:
        ConfigError: the launcher or the sweeper is not installed.
    """
    for part in ("launcher", "sweeper"):
        plugin = hydra[part]["_target_"].split(".")[1]
        extra = EXTRAS.get(plugin)
        if extra is not None and not installed(plugin):
            choice = hydra.runtime.choices[f"hydra/{part}"]
            raise ConfigError(
                f"hydra/{part} is {choice}, but {plugin} is not installed; install the extra {extra}: "
                f"pip install -e '.[{extra}]'."
            )
