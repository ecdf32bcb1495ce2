"""Who hears of a run besides its own files: each is a `Logger`, off unless asked for.

metrics.jsonl is always written and is the record; a logger is told what was written there.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from expert_iteration.choices import WandbMode
from expert_iteration.config import ConfigError, LoggerConfig, RunConfig
from expert_iteration.reporting.excerpt import Row
from expert_iteration.reporting.jsonl import Event


class Logger(Protocol):
    """Whatever goes wrong in one is said once, and the run goes on."""

    def stand(self, step: int, past: Sequence[Event]) -> None:
        """The run begins, or goes on from optimizer step `step`: comes before all else.

        Args:
            past: the events that stand. What was said after them is about to be said again.
        """
        ...

    def log(self, event: Event) -> None:
        """One line of metrics.jsonl; its `step` is the x axis."""
        ...

    def rollouts(self, iteration: int, step: int, rows: Sequence[Row]) -> None:
        """Some of the rollouts of a finished iteration."""
        ...

    def finish(self, summary: Mapping[str, Any] | None = None) -> None:
        """End it. A second call does nothing.

        Args:
            summary: what the run achieved; None: it failed.
        """
        ...


def make_loggers(config: RunConfig, run_dir: Path) -> list[Logger]:
    """The loggers that the section `logger` asks for.

    Raises:
        ConfigError: the package of one of them is not installed.
    """
    for package, problem in _needs(config.logger):
        if not _is_installed(package):
            raise ConfigError(problem)
    loggers: list[Logger] = []
    if config.logger.tensorboard:
        from expert_iteration.reporting.tensorboard_logger import TensorboardLogger

        loggers.append(TensorboardLogger(config, run_dir))
    if config.logger.wandb is not WandbMode.disabled:
        from expert_iteration.reporting.wandb_logger import WandbLogger

        loggers.append(WandbLogger(config, run_dir))
    return loggers


def _is_installed(package: str) -> bool:
    """A folder of that name, such as wandb's own, is no package."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def _needs(options: LoggerConfig) -> Iterator[tuple[str, str]]:
    """(package, what to say if it is not installed)."""
    if options.tensorboard:
        yield (
            "tensorboard",
            "logger.tensorboard is true but tensorboard is not installed; install it (the extra "
            "`tensorboard`), or use logger.tensorboard=false.",
        )
    if options.wandb is not WandbMode.disabled:
        yield (
            "wandb",
            f"logger.wandb is {options.wandb.value} but wandb is not installed; install it (the extra "
            "`wandb`), or use logger.wandb=disabled.",
        )
