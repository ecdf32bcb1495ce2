"""What is counted of every group, and the rates that follow."""

from collections import Counter

from expert_iteration.types import Finish, Group, Metrics, Tally

COUNTS = ("groups", "rollouts", "tokens", "correct", "formatted", "abstained", "truncated")
"""Keys of a tally that are no fates of selection."""


def count(group: Group) -> Tally:
    """What one group adds to the books of its iteration."""
    return Counter(
        groups=1,
        rollouts=len(group.rollouts),
        tokens=sum(len(rollout.token_ids) for rollout in group.rollouts),
        correct=sum(verdict.success for verdict in group.verdicts),
        formatted=sum(verdict.format_reward > 0 for verdict in group.verdicts),
        abstained=sum(verdict.abstains for verdict in group.verdicts),
        truncated=sum(rollout.finish is Finish.LENGTH for rollout in group.rollouts),
    )


def rates(book: Tally, seconds: float) -> Metrics:
    """Metrics of the groups in `book`, which took `seconds` to collect.

    Shares are of all rollouts; `selection/<fate>` are counts, `rollout/length` tokens of a response.
    """
    rollouts = max(1, book["rollouts"])
    fates = {f"selection/{key}": float(value) for key, value in book.items() if key not in COUNTS}
    return {
        "rollout/count": float(book["rollouts"]),
        "rollout/success": book["correct"] / rollouts,
        "rollout/format": book["formatted"] / rollouts,
        "rollout/truncated": book["truncated"] / rollouts,
        "rollout/abstained": book["abstained"] / rollouts,
        "rollout/length": book["tokens"] / rollouts,
        "rollout/tokens_per_second": book["tokens"] / max(seconds, 1e-9),
        "selection/kept": 0.0,
        "selection/kept_share": book["kept"] / rollouts,
    } | fates
