"""Metrics and some rollouts to Weights & Biases, in ``<run folder>/wandb`` and, if asked for, online."""

import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from expert_iteration.choices import WandbMode
from expert_iteration.config import LoggerConfig, RunConfig
from expert_iteration.reporting.excerpt import COLUMNS, Row
from expert_iteration.reporting.jsonl import Event
from expert_iteration.reporting.redact import redact
from expert_iteration.reporting.sweep_job import sweep_job
from expert_iteration.reporting.watermark import Watermark

if TYPE_CHECKING:
    import wandb

ROLLOUTS = "rollouts"

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
    makers. A resumed run goes on under the same wandb id, and what it lives through again is not sent
    again. The runs of a sweep are a group, named after its folder unless `logger.group` is.
    """

    def __init__(self, config: RunConfig, run_dir: Path, limits: Limits = LIMITS) -> None:
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        import wandb

        self._failures = (wandb.errors.Error, OSError)
        self._run: wandb.Run | None = None
        folder = run_dir / "wandb"
        folder.mkdir(exist_ok=True)
        identity = _identity(folder / "run_id.txt")
        self._watermark = Watermark(folder / "sent.json")
        if config.logger.wandb is WandbMode.online:
            self._start("online", config, run_dir, identity, limits)
        if self._run is None:
            self._start("offline", config, run_dir, identity, limits)

    def stand(self, step: int, past: Sequence[Event]) -> None:
        self._watermark.stand(step, past)

    def log(self, event: Event) -> None:
        row = {key: value for key, value in event.items() if value is not None}
        self._send(lambda: self._watermark.next_event(event), lambda: row)

    def rollouts(self, iteration: int, step: int, rows: Sequence[Row]) -> None:
        def row() -> dict[str, Any]:
            import wandb

            table = wandb.Table(columns=list(COLUMNS), data=[list(row.values()) for row in rows])
            return {"iteration": iteration, "step": step, ROLLOUTS: table}

        self._send(lambda: self._watermark.next_rollouts(iteration), row)

    def _send(self, next_number: Callable[[], int | None], row: Callable[[], dict[str, Any]]) -> None:
        if self._run is None:
            return
        try:
            number = next_number()
            if number is not None:
                self._run.log(row(), step=number)
        except self._failures as error:
            self._give_up(f"wandb lost the connection to its service ({error}); metrics.jsonl goes on.")

    def finish(self, summary: Mapping[str, Any] | None = None) -> None:
        """Wait a limited time for the upload, then end wandb's process."""
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

        names = names_of(config.logger, run_dir)
        try:
            if mode == "online" and not wandb.login(prompt=False, verify=False):
                logger.warning("wandb has no account on this machine; logging offline (see `wandb login`).")
                return
            self._run = wandb.init(
                mode=mode,
                id=identity,
                resume="allow",
                dir=str(run_dir),
                project=redact(config.logger.project),
                group=redact(names.group),
                name=redact(names.name),
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


class Names(NamedTuple):
    group: str | None
    name: str


def names_of(options: LoggerConfig, run_dir: Path) -> Names:
    """What a run is called; jobs of a sweep have their number behind their common name."""
    job = sweep_job(run_dir)
    if job is None:
        return Names(options.group, options.name or run_dir.name)
    return Names(options.group or job.sweep, f"{options.name or job.sweep}-{job.job}")


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
