"""The command line: compose the configuration, check it, run it, say what went wrong.

Importing this module is cheap; whatever is heavy is imported once the configuration has passed.
"""

import math
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from expert_iteration.checks import from_hydra
from expert_iteration.config import ConfigError, RunConfig, register_schema
from expert_iteration.sessions import run
from expert_iteration.sweeps.callback import Sweeping
from expert_iteration.sweeps.jobs import STOPPED, forget_error, has_begun, note_error, objective

EXIT_ERROR = 1
EXIT_CONFIGURATION = 2
EXIT_LOST = 3
EXIT_DAMAGED = 4
EXIT_DIVERGED = 5
EXIT_UNSAVED = 6


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

    def job(composed: DictConfig) -> float | None:
        register()  # once more: a launcher may have sent the job to another process
        run_dir = Path(HydraConfig.get().runtime.output_dir)
        sweeps = HydraConfig.get().mode is RunMode.MULTIRUN
        forget_error(run_dir)
        try:
            outcome = work(from_hydra(composed), run_dir)
        except Exception as error:
            codes.append(explain(error))
            note_error(run_dir, error)
            if sweeps:
                raise  # the other jobs of the sweep go on, and Hydra fails it in the end
            raise SystemExit(codes[0]) from None
        if sweeps and outcome == STOPPED:
            raise SystemExit(0)  # the signal was for the whole sweep
        return objective(run_dir)

    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")(job)()
    except SystemExit as stop:
        # Hydra exits with 1 when it cannot compose the configuration
        composed_badly = stop.code == 1 and not codes and not begun_jobs()
        raise SystemExit(codes[0] if codes else EXIT_CONFIGURATION if composed_badly else stop.code) from None
    finally:
        if begun_jobs():
            report_sweep()


def begun_jobs() -> bool:
    """Whether this process has begun a sweep, and a job of it has a folder."""
    return Sweeping.folder is not None and has_begun(Sweeping.folder)


def report_sweep() -> None:
    """Write the report of the sweep that this process began, however it ended."""
    from expert_iteration.reports.sweep import write_sweep_report

    assert Sweeping.folder is not None
    page, *_ = write_sweep_report(Sweeping.folder)
    sys.stdout.write(f"sweep report: {page}\n")


def register() -> None:
    """Tell Hydra of the schema and of the resolvers that the yaml files use."""
    register_schema()
    # Hydra copies its sources, and so this store, for each group that --help lists: half of its time
    ConfigStore.instance().__dict__["__deepcopy__"] = _the_store
    OmegaConf.register_new_resolver("first", lambda *values: next(v for v in values if v), replace=True)
    OmegaConf.register_new_resolver("min", lambda *values: min(values), replace=True)
    OmegaConf.register_new_resolver("sum", lambda *values: sum(values), replace=True)
    OmegaConf.register_new_resolver("product", lambda *values: math.prod(values), replace=True)


def _the_store(_: object) -> ConfigStore:
    return ConfigStore.instance()


def explain(error: Exception) -> int:
    """Say on standard error what went wrong; returns the exit code for it."""
    from expert_iteration.checkpoint import DamagedCheckpoint, SaveFailed
    from expert_iteration.guard import Diverged
    from expert_iteration.reporting.text import one_line
    from expert_iteration.workers import ComponentLost

    known: dict[type[Exception], int] = {
        ConfigError: EXIT_CONFIGURATION,
        ComponentLost: EXIT_LOST,
        TimeoutError: EXIT_LOST,
        DamagedCheckpoint: EXIT_DAMAGED,
        Diverged: EXIT_DIVERGED,
        SaveFailed: EXIT_UNSAVED,
    }
    for kind, code in known.items():
        if isinstance(error, kind):
            sys.stderr.write(f"error: {one_line(str(error))}\n")
            return code
    traceback.print_exception(error)
    return EXIT_ERROR
