"""Every method is one row: where its answers come from; the rest of it is configuration.

What a method keeps (`selection.*`) and what it minimises (`loss.*`) are set by its yaml in
config/algorithm, so that a sweep can change them one by one.
"""

from dataclasses import dataclass
from enum import Enum

from expert_iteration.config import ConfigError, RunConfig


class Source(Enum):
    """Where training answers come from."""

    POLICY = "sampled by the policy"
    DATASET = "demonstrations of the dataset"


@dataclass(frozen=True)
class Algorithm:
    source: Source
    paper: str


ALGORITHMS = {
    "expert_iteration": Algorithm(Source.POLICY, "Anthony et al. 2017, arXiv 1705.08439; CS336 Algorithm 2"),
    "rejection": Algorithm(Source.POLICY, "Yuan et al. 2023 (RFT), arXiv 2308.01825"),
    "sft": Algorithm(Source.DATASET, "CS336 Algorithm 1"),
}


def algorithm_of(config: RunConfig) -> Algorithm:
    """The row that `algorithm.name` names."""
    name = config.algorithm.name
    if name not in ALGORITHMS:
        raise ConfigError(f"algorithm.name ({name}) is not one of {', '.join(ALGORITHMS)}.")
    return ALGORITHMS[name]
