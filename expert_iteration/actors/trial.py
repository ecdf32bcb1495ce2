"""Does Ray start here? A private instance as a run has it, with one actor, that is asked once and ended."""

import os
from contextlib import suppress

import ray

from expert_iteration.actors.instance import start_ray
from expert_iteration.config import RunConfig


class Asked:
    """An actor that can say where it lives."""

    def pid(self) -> int:
        return os.getpid()


def try_ray(config: RunConfig) -> str:
    """What was started and ended again, in a few words.

    Raises:
        TimeoutError: the actor gave no answer within `wait_limit`.
        RuntimeError: Ray does not start, or the actor died.
    """
    try:
        start_ray(config)
        actor = ray.remote(num_cpus=0)(Asked).remote()
        pid = ray.get(actor.pid.remote(), timeout=config.wait_limit)
        assert pid != os.getpid()
        return f"ray {ray.__version__} started, and an actor answered from a process of its own"
    except ray.exceptions.GetTimeoutError as error:
        raise TimeoutError(
            f"an actor gave no answer to pid in {config.wait_limit:.0f} s (wait_limit)"
        ) from error
    except ray.exceptions.RayError as error:
        raise RuntimeError(str(error).strip().splitlines()[-1]) from error
    finally:
        with suppress(ray.exceptions.RayError):
            ray.shutdown()
