"""The Ray that the actors of a run live in: an instance of its own, or a cluster that others may use too."""

import atexit
import os
import secrets
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import ray

from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.guardian import guarded
from expert_iteration.placement.bundles import bundles_of, total

OBJECT_STORE_BYTES = 512 * 2**20
TOKEN_FILE = Path(".ray") / "auth_token"
"""Where Ray looks for a token of its own accord, in the home folder."""


def start_ray(config: RunConfig) -> None:
    """Join the cluster at `ray.address`, or start an instance of this run alone; neither has a dashboard.

    Raises:
        ConfigError: the cluster cannot be joined.
    """
    threads = {"OMP_NUM_THREADS": str(config.placement.infer.threads)}
    options = {"logging_level": "ERROR", "log_to_driver": False, "runtime_env": {"env_vars": threads}}
    if config.ray.address is None:
        _start(config, options)
    else:
        _join(config.ray.address, options)


def _start(config: RunConfig, options: dict[str, object]) -> None:
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    folder = _own_folder()
    # here CPUs are only counted, so that the parts fit on a small machine too
    cpus = max(os.cpu_count() or 1, total(bundles_of(config))[1])
    with guarded(folder):
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            **options,
        )


@cache
def _own_folder() -> str | None:
    """For the files of Ray, as long as this process lives; None if RAY_TMPDIR names one already."""
    if "RAY_TMPDIR" in os.environ:
        return None
    # Ray lets everyone write to its folders, and unpickles what comes through the sockets in them
    folder = os.environ["RAY_TMPDIR"] = mkdtemp(prefix="ray-")
    atexit.register(_remove, folder)
    return folder


def _remove(folder: str) -> None:
    ray.shutdown()
    rmtree(folder, ignore_errors=True)


def _join(address: str, options: dict[str, object]) -> None:
    if not has_token():
        raise ConfigError(
            f"ray.address ({address}) names a cluster, which is joined with its token alone; put that into "
            "RAY_AUTH_TOKEN, or the name of a file with it into RAY_AUTH_TOKEN_PATH."
        )
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"ray.address ({address}) cannot be joined ({reason}); start the run on a node of that cluster, "
            "with its token in RAY_AUTH_TOKEN and the versions of Ray and Python that it has."
        ) from error


def has_token() -> bool:
    """Whether Ray would find a token to show to a cluster."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named) if named else Path.home() / TOKEN_FILE
    return file.is_file() and bool(file.read_text(encoding="utf-8").strip())
