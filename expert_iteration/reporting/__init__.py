"""How a run is seen: on the terminal, in files and, if asked for, in wandb."""

from expert_iteration.reporting.collecting import Collecting
from expert_iteration.reporting.reporter import Phase, Reporter
from expert_iteration.reporting.rollouts import RolloutLog
from expert_iteration.reporting.statistics import wilson

__all__ = ["Collecting", "Phase", "Reporter", "RolloutLog", "wilson"]
