"""Every method is one row: where its answers come from, which of them it keeps and what it minimises.

The numbers of a method (`selection.*`, `loss.*`, where training starts from) are set by its yaml in
config/algorithm, so that a sweep can change them one by one.
"""

from dataclasses import dataclass
from enum import Enum
from math import ceil

from expert_iteration.choices import Prefer, PromptStrategy, Strategy
from expert_iteration.config import ConfigError, RunConfig

TURNS = 4
"""In which the frontier has all answers to a prompt sampled, at most."""


class Source(Enum):
    """Where training answers come from."""

    POLICY = "sampled by the policy"
    DATASET = "demonstrations of the dataset"


class Keep(Enum):
    """What selection lets through."""

    SUCCESSFUL = "successful answers"
    GROUPS = "all answers of a group in which some are successful and some are not"
    ALL = "all answers"


class Loss(Enum):
    """A function of losses.py."""

    LIKELIHOOD = "likelihood"
    POLICY_GRADIENT = "policy gradient"
    CLIPPED = "clipped policy gradient"
    MINOR_SFT = "minor SFT"
    REGRESSION = "regression on the advantage"


class Advantage(Enum):
    """What a response earns in the loss."""

    ONE = "1: it was kept, and is imitated"
    REWARD = "max(r, 0)"
    GROUP = "r less the mean of its group, over the standard deviation if loss.normalize_std"
    BATCH = "+1 or -1 for success, less the mean over the optimizer step"
    VALUE = "r less the optimal value V* of its prompt"


@dataclass(frozen=True)
class Objective:
    loss: Loss
    advantage: Advantage

    @property
    def reads_reference(self) -> bool:
        return self.loss in (Loss.MINOR_SFT, Loss.REGRESSION)

    @property
    def off_policy(self) -> bool:
        """Whether importance weights correct for the policy that sampled."""
        return self.loss in (Loss.POLICY_GRADIENT, Loss.CLIPPED)


@dataclass(frozen=True)
class Algorithm:
    source: Source
    keep: Keep
    objectives: dict[str, Objective]
    """By `algorithm.variant`; the first is the default."""
    paper: str


IMITATE = {"sft": Objective(Loss.LIKELIHOOD, Advantage.ONE)}

ALGORITHMS = {
    "expert_iteration": Algorithm(
        Source.POLICY, Keep.SUCCESSFUL, IMITATE, "arXiv 1705.08439; CS336 2025, Algorithm 2"
    ),
    "rejection": Algorithm(Source.POLICY, Keep.SUCCESSFUL, IMITATE, "RFT, arXiv 2308.01825"),
    "rest_em": Algorithm(Source.POLICY, Keep.SUCCESSFUL, IMITATE, "arXiv 2312.06585"),
    "star": Algorithm(Source.POLICY, Keep.SUCCESSFUL, IMITATE, "arXiv 2203.14465"),
    "sft": Algorithm(Source.DATASET, Keep.SUCCESSFUL, IMITATE, "CS336 2025, Algorithm 1"),
    "minor_sft": Algorithm(
        Source.POLICY,
        Keep.SUCCESSFUL,
        {"minor_sft": Objective(Loss.MINOR_SFT, Advantage.ONE)},
        "arXiv 2408.10642",
    ),
    "raft": Algorithm(
        Source.POLICY,
        Keep.SUCCESSFUL,
        {"raft": Objective(Loss.LIKELIHOOD, Advantage.REWARD)},
        "arXiv 2304.06767",
    ),
    "raft_pp": Algorithm(
        Source.POLICY,
        Keep.SUCCESSFUL,
        {"raft_pp": Objective(Loss.CLIPPED, Advantage.REWARD)},
        "arXiv 2504.11343",
    ),
    "grpo": Algorithm(
        Source.POLICY,
        Keep.GROUPS,
        {
            "grpo_clip": Objective(Loss.CLIPPED, Advantage.GROUP),
            "reinforce_with_baseline": Objective(Loss.POLICY_GRADIENT, Advantage.GROUP),
            "no_baseline": Objective(Loss.POLICY_GRADIENT, Advantage.REWARD),
        },
        "arXiv 2402.03300; CS336 2025, eq. 28-34",
    ),
    "a_star_po": Algorithm(
        Source.POLICY,
        Keep.ALL,
        {
            "regression": Objective(Loss.REGRESSION, Advantage.VALUE),
            "policy_gradient": Objective(Loss.POLICY_GRADIENT, Advantage.BATCH),
        },
        "arXiv 2505.20686",
    ),
}


def algorithm_of(config: RunConfig) -> Algorithm:
    """The row that `algorithm.name` names.

    Raises:
        ConfigError: there is none.
    """
    name = config.algorithm.name
    if name not in ALGORITHMS:
        raise ConfigError(f"algorithm.name ({name}) is not one of {', '.join(ALGORITHMS)}.")
    return ALGORITHMS[name]


def objective_of(config: RunConfig) -> Objective:
    """What `algorithm.variant` minimises.

    Raises:
        ConfigError: the algorithm has no such variant.
    """
    objectives = algorithm_of(config).objectives
    variant = config.algorithm.variant or next(iter(objectives))
    if variant not in objectives:
        raise ConfigError(
            f"algorithm.variant ({variant}) is not one of {', '.join(objectives)}, which "
            f"algorithm.name={config.algorithm.name} offers."
        )
    return objectives[variant]


def may_stop_early(config: RunConfig) -> bool:
    """Whether `top_k` right answers to a prompt are all that can be kept, whatever others there would be."""
    chosen, reward = config.selection, config.reward
    return (
        algorithm_of(config).keep is Keep.SUCCESSFUL
        and algorithm_of(config).source is Source.POLICY
        and chosen.top_k is not None
        and (chosen.strategy, chosen.prefer, chosen.min_reward) == (Strategy.top_k, Prefer.first, None)
        and reward.format == reward.brevity == reward.variety == 0
    )


def answers_at_once(config: RunConfig) -> int:
    """Answers to a prompt that are sampled before it is looked at whether they are enough."""
    if config.sampling.at_once is not None:
        return config.sampling.at_once
    if config.prompts.strategy is PromptStrategy.frontier and may_stop_early(config):
        return ceil(config.rollouts_per_prompt / TURNS)
    return config.rollouts_per_prompt


def needs_reference(config: RunConfig) -> bool:
    """Whether a reference model of its own scores the rows.

    With adapters the learner holds one already: its model without them.
    """
    return reads_reference(config) and config.model.lora.rank == 0


def reads_reference(config: RunConfig) -> bool:
    """Whether the loss, a KL term or a metric reads reference log-probs."""
    asked = config.loss.kl_coefficient > 0 or config.health.measure_kl
    return asked or objective_of(config).reads_reference


def needs_values(config: RunConfig) -> bool:
    """Whether advantages are measured from the optimal values of the prompts."""
    return objective_of(config).advantage is Advantage.VALUE
