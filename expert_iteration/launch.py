"""The command line: compose the configuration, check it, start the parts, train, clean up.

Importing this module is cheap; whatever is heavy is imported once the configuration has passed.
"""

import asyncio
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from expert_iteration.algorithms import needs_values
from expert_iteration.checks import from_hydra
from expert_iteration.choices import Runtime
from expert_iteration.config import ConfigError, RunConfig, register_schema

if TYPE_CHECKING:
    from expert_iteration.prompts import Data
    from expert_iteration.reporting import Reporter
    from expert_iteration.workers import Workers

EXIT_ERROR = 1
EXIT_CONFIGURATION = 2
EXIT_LOST = 3


def config_folder() -> Path:
    """The yaml tree: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).parent
    beside = package.parent / "config"
    return beside if (beside / "train.yaml").is_file() else package / "_config"


def main() -> None:
    """Entry point of ``scripts/train.py`` and of the ``expert-iteration`` command."""
    command(run)


def command(work: Callable[[RunConfig, Path], object]) -> None:
    """Do `work` with the configuration that the command line composes, in the folder that it names.

    Raises:
        SystemExit: `work` failed, or the configuration cannot work; standard error says why.
    """
    register()
    codes: list[int] = []

    def job(composed: DictConfig) -> None:
        try:
            work(from_hydra(composed), Path(HydraConfig.get().runtime.output_dir))
        except Exception as error:
            codes.append(explain(error))
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise  # the other jobs of the sweep go on, and Hydra fails it in the end
            raise SystemExit(codes[0]) from None

    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")(job)()
    except SystemExit as stop:
        # Hydra exits with 1 when it cannot compose the configuration
        composed_badly = stop.code == 1 and not codes
        raise SystemExit(codes[0] if codes else EXIT_CONFIGURATION if composed_badly else stop.code) from None


def register() -> None:
    """Tell Hydra of the schema and of the resolvers that the yaml files use."""
    register_schema()
    OmegaConf.register_new_resolver("first", lambda *values: next(v for v in values if v), replace=True)
    OmegaConf.register_new_resolver("min", lambda *values: min(values), replace=True)


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
        try:
            return asyncio.run(_run(config, run_dir, data, reporter))
        except BaseExceptionGroup as group:
            raise _first(group) from None


async def _run(config: RunConfig, run_dir: Path, data: "Data", reporter: "Reporter") -> str:
    from expert_iteration.checkpoint import progress_of, refuse_other_data
    from expert_iteration.reporting.jsonl import write_json
    from expert_iteration.scheduler import Progress
    from expert_iteration.training import train

    if config.resume:
        refuse_other_data(run_dir, data.hash)
    write_json(run_dir / "data_report.json", data.report.as_json() | {"hash": data.hash})
    stands = progress_of(run_dir) if config.resume else Progress()
    reporter.start(stands.iteration, stands.steps)
    data.report.announce()
    with reporter.phase("start"):
        workers = await start_workers(config, run_dir)
    try:
        return await train(config, run_dir, data, workers, reporter)
    finally:
        await workers.close()


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


def explain(error: Exception) -> int:
    """Say on standard error what went wrong; returns the exit code for it."""
    from expert_iteration.workers import ComponentLost

    if isinstance(error, ConfigError):
        sys.stderr.write(f"error: {error}\n")
        return EXIT_CONFIGURATION
    if isinstance(error, ComponentLost | TimeoutError):
        sys.stderr.write(f"error: {error}\n")
        return EXIT_LOST
    traceback.print_exception(error)
    return EXIT_ERROR


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


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group that says what happened."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
