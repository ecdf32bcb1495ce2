"""What is counted of every group, the rates that follow, and when too little could be judged."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import nan

from expert_iteration.types import Finish, Group, Metrics, Outcome, Tally, Verdict

COUNTS = (
    *("groups", "rollouts", "tokens", "correct", "formatted", "abstained", "timeout", "error", "truncated"),
    *("format_millionths", "answer_reward_millionths", "reward_millionths"),
)
"""Keys of a tally that are no fates of selection.

Sums of rewards, over the answers that were judged, are counted in millionths: whole numbers add up to the
same total in any order of arrival.
"""
ALARMING_SHARE = 0.01
"""More abstentions than this share of the answers are worth a warning."""


def count(group: Group) -> Tally:
    """What one group adds to the books of its iteration."""
    judged = [i for i, verdict in enumerate(group.verdicts) if not verdict.abstains]
    verdicts = [group.verdicts[i] for i in judged]
    tally = count_verdicts(group.verdicts)
    tally.update(
        groups=1,
        tokens=sum(len(rollout.token_ids) for rollout in group.rollouts),
        formatted=sum(verdict.format_reward > 0 for verdict in group.verdicts),
        truncated=sum(rollout.finish is Finish.LENGTH for rollout in group.rollouts),
        format_millionths=_millionths(verdict.format_reward for verdict in verdicts),
        answer_reward_millionths=_millionths(verdict.answer_reward for verdict in verdicts),
        reward_millionths=_millionths(group.rewards[i] for i in judged),
    )
    return tally


def count_verdicts(verdicts: Sequence[Verdict]) -> Tally:
    """How many answers there are, how many of them are correct, and on how many the grader abstains."""
    return Counter(
        rollouts=len(verdicts),
        correct=sum(verdict.success for verdict in verdicts),
        abstained=sum(verdict.abstains for verdict in verdicts),
        timeout=sum(verdict.outcome is Outcome.TIMEOUT for verdict in verdicts),
        error=sum(verdict.outcome is Outcome.ERROR for verdict in verdicts),
    )


def rates(book: Tally, seconds: float) -> Metrics:
    """Metrics of the groups in `book`, which took `seconds` to collect.

    Shares are of all rollouts; `format`, `answer_reward` and `reward` are means over those that were judged,
    NaN when none was. `selection/<fate>` are counts, `rollout/length` tokens of a response.
    """
    rollouts = max(1, book["rollouts"])
    fates = {f"selection/{key}": float(value) for key, value in book.items() if key not in COUNTS}
    return {
        "rollout/count": float(book["rollouts"]),
        "rollout/success": book["correct"] / rollouts,
        "rollout/format": _mean_judged(book, "format_millionths"),
        "rollout/answer_reward": _mean_judged(book, "answer_reward_millionths"),
        "rollout/reward": _mean_judged(book, "reward_millionths"),
        "rollout/truncated": book["truncated"] / rollouts,
        "rollout/abstained": book["abstained"] / rollouts,
        "rollout/timeout": book["timeout"] / rollouts,
        "rollout/error": book["error"] / rollouts,
        "rollout/length": book["tokens"] / rollouts,
        "rollout/tokens_per_second": book["tokens"] / max(seconds, 1e-9),
        "selection/kept": 0.0,
        "selection/kept_share": book["kept"] / rollouts,
    } | fates


def alarm(book: Tally) -> str | None:
    """What to say when more than `ALARMING_SHARE` of the answers could not be judged, else None."""
    answers, abstained = book["rollouts"], book["abstained"]
    if abstained <= ALARMING_SHARE * answers:
        return None
    return (
        f"{abstained:,} of {answers:,} answers ({abstained / answers:.1%}) could not be judged "
        f"(timeout {book['timeout']:,}, error {book['error']:,})"
    )


def _millionths(rewards: Iterable[float]) -> int:
    return sum(round(1_000_000 * reward) for reward in rewards)


def _mean_judged(book: Tally, key: str) -> float:
    judged = book["rollouts"] - book["abstained"]
    return book[key] / 1_000_000 / judged if judged else nan
