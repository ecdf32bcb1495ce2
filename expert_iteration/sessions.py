"""A run from its first part to its last: the folder is claimed, the parts are started, and all is cleaned up.

It takes as many sessions as parts are lost that cannot be replaced: each begins at the last checkpoint of the
one before. Importing this module is cheap; whatever is heavy is imported once the configuration has passed.
"""

import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from expert_iteration.algorithms import needs_values
from expert_iteration.choices import Runtime
from expert_iteration.config import ConfigError, RunConfig

if TYPE_CHECKING:
    from expert_iteration.checkpoint import Origin, Provenance, Saved
    from expert_iteration.prompts import Data
    from expert_iteration.reporting import Reporter
    from expert_iteration.workers import Workers

LOCK = ".lock"
"""File of a run folder that a running run holds."""

logger = logging.getLogger(__name__)


def run(config: RunConfig, run_dir: Path) -> str:
    """One run in `run_dir`; when it returns or raises, nothing of it is left in any process.

    Returns:
        "finished", or "stopped" when a signal asked for it.

    Raises:
        ConfigError: the configuration or the data cannot work; no model was loaded.
        ComponentLost: a part of the run died or went silent.
    """
    from expert_iteration.output import captured_output
    from expert_iteration.reporting import Reporter

    with (
        termination_as_exit(),
        sole_owner(config, run_dir),
        captured_output(run_dir, "driver") as terminal,
        Reporter(config, run_dir, terminal) as reporter,
    ):
        from expert_iteration.prompts import load_data
        from expert_iteration.tokenizer import load_tokenizer, resolve_model
        from expert_iteration.training import laws_of
        from expert_iteration.values import with_values

        laws_of(config)
        data = load_data(config, load_tokenizer(resolve_model(config).model))
        if needs_values(config):
            data = with_values(config, data)
        outcome = asyncio.run(_run(config, run_dir, data, reporter))
        if config.logger.report and outcome == "finished":
            from expert_iteration.reports.apart import report_apart

            if page := report_apart(run_dir):
                reporter.note(f"report     {page}")
        return outcome


@contextmanager
def sole_owner(config: RunConfig, run_dir: Path) -> Iterator[None]:
    """Hold the folder of a run against others, until the block ends or the process does.

    Raises:
        ConfigError: it cannot be written, or another run has it, or it holds one that is not to go on.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        # a link in its place would have another file emptied
        lock = os.open(run_dir / LOCK, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(
            f"{run_dir} cannot be written ({error.strerror}); name another hydra.run.dir."
        ) from None
    with os.fdopen(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{run_dir} is in use by another run; name another hydra.run.dir.") from None
        if config.resume is None and (run_dir / "metrics.jsonl").exists():
            raise ConfigError(
                f"{run_dir} holds a run already; go on with it by resume={run_dir}, or name another "
                "hydra.run.dir."
            )
        yield


async def _run(config: RunConfig, run_dir: Path, data: "Data", reporter: "Reporter") -> str:
    """The run, in as many sessions as it takes: each begins at the last checkpoint of the one before."""
    from expert_iteration import checkpoint
    from expert_iteration.checkpoint import Origin
    from expert_iteration.reporting.jsonl import write_json
    from expert_iteration.resuming import refuse_changes
    from expert_iteration.workers import ComponentLost

    provenance = provenance_of(config, data.hash)
    saved = checkpoint.newest(run_dir, config.checkpoint.strict) if config.resume else None
    if saved:
        refuse_changes(run_dir, saved.standing, config, provenance)
    write_json(run_dir / "data_report.json", data.report.as_json() | {"hash": data.hash})
    reporter.start(*_place_of(saved))
    data.report.announce()
    restarts = config.ray.max_restarts if config.recover else 0
    while True:
        try:
            return await _session(config, run_dir, data, reporter, Origin(provenance, saved))
        except (ComponentLost, BaseExceptionGroup) as error:
            lost = _first(error)
        if not isinstance(lost, ComponentLost) or not restarts or not checkpoint.existing(run_dir):
            _name_the_last(run_dir)
            raise lost
        restarts -= 1
        saved = checkpoint.newest(run_dir)
        logger.warning("%s Going back to %s (%d more times).", lost, saved.folder, restarts)
        reporter.go_back(*_place_of(saved))


async def _session(
    config: RunConfig,
    run_dir: Path,
    data: "Data",
    reporter: "Reporter",
    origin: "Origin",
) -> str:
    from expert_iteration.stages import Run
    from expert_iteration.training import train

    with reporter.phase("start"):
        workers = await start_workers(config, run_dir)
    try:
        run = Run(config, run_dir, data, workers, reporter, origin)
        return await train(config, data, workers, run, reporter)
    finally:
        await workers.close()


def _name_the_last(run_dir: Path) -> None:
    from expert_iteration.checkpoint import existing

    if found := existing(run_dir):
        logger.error("the last checkpoint is %s.", found[-1])


def provenance_of(config: RunConfig, data_hash: str) -> "Provenance":
    """What a run with this configuration rests on, here."""
    from expert_iteration.checkpoint import Provenance, hash_of_folder
    from expert_iteration.grading import GRADER_VERSION
    from expert_iteration.model_files import model_folder
    from expert_iteration.reporting.versions import versions
    from expert_iteration.tokenizer import resolve_model

    folder = model_folder(resolve_model(config).model)
    threads = {"threads": str(config.placement.train.threads)}
    return Provenance(
        GRADER_VERSION,
        data_hash,
        hash_of_folder(folder, "config.json", "*.safetensors", "tokenizer*.json"),
        versions() | threads,
    )


def _place_of(saved: "Saved | None") -> tuple[int, int, int]:
    """Iteration, optimizer steps and events so far."""
    if saved is None:
        return 0, 0, 0
    standing = saved.standing
    return standing.progress.iteration, standing.progress.steps, standing.events


async def start_workers(config: RunConfig, run_dir: Path) -> "Workers":
    """The parts of a run, up and ready."""
    if config.runtime is Runtime.local:
        from expert_iteration.local import LocalWorkers

        return LocalWorkers(config, run_dir)
    from expert_iteration.actors.workers import RayWorkers

    workers = RayWorkers(config, run_dir)
    try:
        await workers.start()
    except BaseException:
        await workers.close()
        raise
    return workers


@contextmanager
def termination_as_exit() -> Iterator[None]:
    """SIGTERM unwinds the stack as Ctrl-C does, so that every part is closed."""

    def leave(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _first(error: BaseException) -> BaseException:
    """The first error of a group, which says what happened."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
