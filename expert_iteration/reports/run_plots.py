"""What is drawn of the metrics of a run, and what the pictures call it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    key: str
    label: str
    questions: str = ""
    """Metric that counts what a share is of, for Wilson's interval."""


@dataclass(frozen=True)
class Plot:
    name: str
    title: str
    unit: str
    lines: tuple[Line, ...]
    caption: str = ""
    by_step: bool = False
    share: bool = False
    """Its values are in [0, 1] and shown in percent."""
    log: bool = False
    """Whether it may have a logarithmic axis."""
    zeros: bool = True
    """Whether a line that is 0 throughout says anything."""

    @property
    def along(self) -> str:
        return "optimizer step" if self.by_step else "iteration"


ACCURACY = Plot(
    "accuracy",
    "Held-out accuracy",
    "accuracy",
    (Line("eval/greedy", "greedy", "eval/n"), Line("eval/pass@1", "sampled (pass@1)", "eval/n")),
    "With 95% intervals (Wilson) for the number of questions.",
    share=True,
)
SAMPLING = (
    Plot(
        "reward",
        "Reward of the answers",
        "mean",
        (
            Line("rollout/reward", "reward"),
            Line("rollout/answer_reward", "of the answer alone"),
            Line("rollout/success", "share correct"),
        ),
        "Of all training answers of an iteration that could be judged; after shaping, and before it.",
    ),
    Plot(
        "format",
        "Format and cut answers",
        "share of answers",
        (
            Line("rollout/format", "in format, training"),
            Line("eval/format", "in format, held out"),
            Line("rollout/truncated", "cut off, training"),
            Line("eval/truncated", "cut off, held out"),
            Line("rollout/abstained", "not judged, training"),
        ),
        share=True,
    ),
    Plot(
        "kept",
        "Kept share",
        "share of answers",
        (Line("selection/kept_share", "kept"), Line("rollout/distinct", "distinct")),
        "What selection lets into training, and how many of the traces differ.",
        share=True,
    ),
    Plot(
        "headroom",
        "What exploration still finds",
        "share of questions",
        (
            Line("rollout/solved", "pass@k: some answer right"),
            Line("rollout/success", "pass@1: the average answer"),
            Line("rollout/headroom", "headroom: pass@k − pass@1"),
        ),
        "Of the training questions; k is the number of answers to each.",
        share=True,
    ),
    Plot(
        "entropy",
        "Entropy of sampling",
        "nats a token",
        (Line("rollout/entropy", "as sampled"),),
        "Mean of −log p over all training tokens that were sampled.",
    ),
    Plot(
        "lengths",
        "Length of the answers",
        "tokens",
        (
            Line("rollout/length_correct", "right, training"),
            Line("rollout/length_wrong", "wrong, training"),
            Line("eval/length", "all, held out"),
        ),
    ),
    Plot(
        "ledger",
        "Questions solved",
        "questions",
        (
            Line("ledger/visited", "visited so far"),
            Line("ledger/solved", "solved so far"),
            Line("ledger/newly_solved", "first solved now"),
            Line("ledger/forgotten", "forgotten now"),
        ),
    ),
)
LEARNING = (
    Plot(
        "loss",
        "Loss",
        "nats",
        (Line("loss/total", "total"), Line("loss/objective", "objective")),
        by_step=True,
    ),
    Plot(
        "gradient",
        "Norm of the gradient",
        "before clipping",
        (Line("train/grad_norm", "norm"),),
        by_step=True,
        log=True,
    ),
    Plot(
        "kl",
        "KL to the initial model",
        "nats a token",
        (Line("loss/kl", "KL, before its coefficient"),),
        by_step=True,
        zeros=False,
    ),
    Plot(
        "distance",
        "Distance from the sampler",
        "nats a token",
        (Line("train/log_ratio", "log π − log π_old"),),
        "Mean over the tokens of a step: 0 just after a push.",
        by_step=True,
    ),
    Plot(
        "train_entropy",
        "Entropy of the trained tokens",
        "nats a token",
        (Line("train/entropy", "of the policy, in training"),),
        by_step=True,
    ),
    Plot("rate", "Learning rate", "", (Line("train/learning_rate", "rate"),), by_step=True),
    Plot(
        "importance",
        "Importance weights",
        "share of tokens",
        (Line("train/ess", "effective sample size"), Line("train/clip_fraction", "clipped")),
        by_step=True,
        share=True,
    ),
    Plot(
        "skipped",
        "Steps left out",
        "share of steps",
        (Line("train/skipped", "left out"), Line("train/spikes", "of them spikes")),
        by_step=True,
        zeros=False,
    ),
    Plot(
        "staleness",
        "Staleness",
        "policy versions behind",
        (Line("policy/age_max", "oldest sample held"),),
        "Age of the oldest sample that may still be trained on, at the end of an iteration.",
        zeros=False,
    ),
    Plot(
        "expired",
        "Samples lost to age",
        "samples so far",
        (Line("buffer/expired", "expired"),),
        zeros=False,
    ),
)
THROUGHPUT = Plot(
    "throughput",
    "Throughput",
    "tokens a second",
    (Line("rollout/tokens_per_second", "sampled"), Line("derived/trained_tokens", "trained on")),
    "Sampled: response tokens by the time of collecting; trained on: all tokens by the time of learning.",
    log=True,
)
