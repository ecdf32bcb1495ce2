"""All checks in order, each as soon as it is made: what is cheap first, what starts a library last."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from expert_iteration.choices import Device, Runtime
from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.doctor import machine, parts, starts
from expert_iteration.doctor.finding import Finding, Status, red, skipped
from expert_iteration.laws import laws_of
from expert_iteration.model_files import model_folder
from expert_iteration.tokenizer import load_tokenizer, resolve_model

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
"""The pinned sets, in a checkout."""
SHARED_MEMORY = Path("/dev/shm")


def consult(config: RunConfig, run_dir: Path, quick: bool) -> Iterator[Finding]:
    """Every check of `config`, which may fail its own; `run_dir` is where a run would write.

    `quick` leaves out what starts Ray or vLLM.
    """
    yield from _machine(config)
    yield machine.outputs(run_dir)
    yield parts.configuration(config, laws_of)
    if not quick:
        yield starts.ray(config)
    yield from _model(resolve_model(config), run_dir, quick)


def _model(config: RunConfig, run_dir: Path, quick: bool) -> Iterator[Finding]:
    """What rests on the model, which is downloaded unless `quick`."""
    try:
        folder = parts.local_folder(config.model) if quick else model_folder(config.model)
        if folder is None:
            yield skipped(
                "model", f"{config.model.path} is on the hub; a run, or this without --quick, fetches it"
            )
            return
        yield machine.disk(
            machine.existing_part(run_dir),
            machine.free_bytes(run_dir),
            parts.checkpoint_bytes(config, folder),
        )
        yield (found := parts.model(folder))
        if found.status is Status.RED:
            return
        tokenizer = load_tokenizer(config.model)
    except ConfigError as error:
        yield red("model", str(error), "ERRORS.md has a row for it")
        return
    yield parts.tokenizer(tokenizer)
    yield parts.templates(config, tokenizer)
    if not quick:
        yield from starts.engine_and_trainer(config, folder, tokenizer)


def _machine(config: RunConfig) -> Iterator[Finding]:
    yield machine.python((*sys.version_info[:3],), sys.executable)
    installed = machine.installed_packages()
    wanted = config.placement.device is Device.cuda
    yield machine.packages(installed, REQUIREMENTS, "gpu" if wanted or "vllm" in installed else "cpu")
    pins = REQUIREMENTS / "gpu.txt"
    yield machine.gpu(
        config,
        machine.gpus_of_machine() if wanted else [],
        machine.read_pins(pins) if pins.is_file() else {},
    )
    yield _shared_memory(config)
    yield machine.ports()


def _shared_memory(config: RunConfig) -> Finding:
    if config.runtime is Runtime.local:
        return skipped("/dev/shm", "runtime=local needs none")
    if config.ray.address is not None:
        return skipped("/dev/shm", "the nodes of the cluster at ray.address have theirs already")
    from expert_iteration.actors.instance import OBJECT_STORE_BYTES

    usage = shutil.disk_usage(SHARED_MEMORY)
    return machine.shared_memory(usage.total, usage.free, OBJECT_STORE_BYTES)
