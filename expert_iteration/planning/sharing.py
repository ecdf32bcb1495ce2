"""What the parts that share a device take of it at its fullest moment, and what they put away meanwhile."""

from collections.abc import Sequence

from expert_iteration.config import RunConfig
from expert_iteration.planning.memory import CUDA_CONTEXT, Process

RESTING = ("weights", "moments", "other")
"""What a trainer keeps on its device while it does not learn."""
SCORED = ("weights", "other")
"""What a reference keeps between two calls."""


def fullest(config: RunConfig, found: Sequence[Process]) -> int:
    """Bytes that processes on one device take at most.

    A synchronous run either samples and scores, or learns. In an asynchronous one all work at once.
    """
    if config.mode.max_staleness > 0:
        return sum(process.total for process in found)
    sampling = sum(_while_sampling(process) for process in found)
    return max(sampling, sum(_while_learning(config, process) for process in found))


def _while_sampling(process: Process) -> int:
    return _some(process, RESTING) if process.name.startswith("trainer") else process.total


def _while_learning(config: RunConfig, process: Process) -> int:
    """Whatever sleeps or is offloaded has its context on the device still."""
    place = config.placement
    if process.name.startswith("collector") and place.infer.sleep_level:
        return CUDA_CONTEXT
    if process.name.startswith("reference"):
        return CUDA_CONTEXT if place.reference.offload else _some(process, SCORED)
    return process.total


def _some(process: Process, parts: Sequence[str]) -> int:
    return sum(process.parts.get(part, 0) for part in parts)
