"""Metrics to Weights & Biases: off unless asked for, and never a reason to stop training."""

import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from expert_iteration.choices import WandbMode
from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.reporting.jsonl import Event
from expert_iteration.reporting.redact import redact

if TYPE_CHECKING:
    import wandb

logger = logging.getLogger(__name__)


class Limits(NamedTuple):
    """Seconds that wandb's server may keep a run waiting."""

    start: float = 30.0
    finish: float = 120.0


LIMITS = Limits()


class WandbLogger:
    """One wandb run, kept in ``<run folder>/wandb``.

    No code, git state, console output, machine details or package list is recorded; the
    configuration goes through the redactor, names included; wandb's own errors are not reported to its
    makers. A resumed run goes on under the same wandb id.
    """

    def __init__(self, config: RunConfig, run_dir: Path, limits: Limits = LIMITS) -> None:
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        import wandb

        self._failures = (wandb.errors.Error, OSError)
        self._run: wandb.Run | None = None
        folder = run_dir / "wandb"
        folder.mkdir(exist_ok=True)
        identity = _identity(folder / "run_id.txt")
        if config.logger.wandb is WandbMode.online:
            self._start("online", config, run_dir, identity, limits)
        if self._run is None:
            self._start("offline", config, run_dir, identity, limits)

    def log(self, event: Event) -> None:
        """Send one line of metrics.jsonl; its `step` is the x axis."""
        if self._run is not None:
            try:
                self._run.log({key: value for key, value in event.items() if value is not None})
            except self._failures as error:
                self._give_up(f"wandb lost the connection to its service ({error}); metrics.jsonl goes on.")

    def finish(self, summary: Mapping[str, Any] | None = None) -> None:
        """Wait a limited time for the upload, then end wandb's process. A second call does nothing.

        Args:
            summary: what the run achieved; None marks it as failed.
        """
        if self._run is None:
            return
        import wandb

        try:
            self._run.summary.update(dict(summary or {}))
            self._run.finish(exit_code=int(summary is None))
            self._run = None
            wandb.teardown()
        except self._failures as error:
            self._give_up(f"wandb could not finish ({error}); `wandb sync` uploads the rest.")

    def _start(
        self,
        mode: Literal["online", "offline"],
        config: RunConfig,
        run_dir: Path,
        identity: str,
        limits: Limits,
    ) -> None:
        import wandb

        names = config.logger
        try:
            if mode == "online" and not wandb.login(prompt=False, verify=False):
                logger.warning("wandb has no account on this machine; logging offline (see `wandb login`).")
                return
            self._run = wandb.init(
                mode=mode,
                id=identity,
                resume="allow",
                dir=str(run_dir),
                project=redact(names.project),
                group=redact(names.group),
                name=redact(names.name) or run_dir.name,
                config=redact(asdict(config)),
                settings=_settings(limits),
            )
            self._run.define_metric("*", step_metric="step")
        except self._failures as error:
            self._give_up(f"wandb is not reachable in {mode} mode ({error}); training goes on.")

    def _give_up(self, reason: str) -> None:
        import wandb

        logger.warning(reason)
        self._run = None
        try:
            wandb.teardown()
        except self._failures as error:
            logger.warning("wandb did not shut down cleanly: %s", error)


def make_wandb_logger(config: RunConfig, run_dir: Path) -> WandbLogger | None:
    """The logger that `logger.wandb` asks for; None when it is disabled.

    Raises:
        ConfigError: if wandb is asked for and not installed.
    """
    if config.logger.wandb is WandbMode.disabled:
        return None
    try:
        return WandbLogger(config, run_dir)
    except ModuleNotFoundError as error:
        mode = config.logger.wandb.value
        raise ConfigError(
            f"logger.wandb is {mode} but {error.name} is not installed; "
            "install wandb or use logger.wandb=disabled."
        ) from error


def _settings(limits: Limits) -> "wandb.Settings":
    import wandb

    return wandb.Settings(
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        console="off",
        silent=True,
        host="hidden",
        label_disable=True,
        reinit="create_new",
        init_timeout=limits.start,
        finish_timeout=limits.finish,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )


def _identity(path: Path) -> str:
    """The wandb id of this run folder, drawn on first use."""
    if not path.exists():
        path.write_text(f"{secrets.token_hex(8)}\n", encoding="ascii")
    return path.read_text(encoding="ascii").strip()
