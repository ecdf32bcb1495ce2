"""How a run is seen: on the terminal, in files and, if asked for, in wandb and TensorBoard.

What is named here is loaded when it is first asked for: the command line only needs `text`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expert_iteration.reporting.collecting import Collecting
    from expert_iteration.reporting.reporter import Phase, Reporter
    from expert_iteration.reporting.rollouts import RolloutLog
    from expert_iteration.reporting.statistics import wilson

__all__ = ["Collecting", "Phase", "Reporter", "RolloutLog", "wilson"]

_HOMES = {
    "Collecting": "collecting",
    "Phase": "reporter",
    "Reporter": "reporter",
    "RolloutLog": "rollouts",
    "wilson": "statistics",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"{__name__} has no {name}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
