"""What is counted of every group, the rates that follow, and when too little could be judged."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import nan

from expert_iteration.traces import normal_text
from expert_iteration.types import Finish, Group, Metrics, Outcome, Tally, Verdict

COUNTS = (
    *("groups", "rollouts", "tokens", "correct", "formatted", "abstained", "timeout", "error", "truncated"),
    *("format_millionths", "answer_reward_millionths", "reward_millionths", "surprisal_millionths"),
    *("solved", "distinct", "tokens_correct", "refilled", "hinted", "rationalised"),
)
"""Keys of a tally that are no fates of selection.

Sums of rewards, over the answers that were judged, are counted in millionths: whole numbers add up to the
same total in any order of arrival.
"""
MILLION = 1_000_000
ALARMING_SHARE = 0.01
"""More abstentions than this share of the answers are worth a warning."""


def count(group: Group) -> Tally:
    """What one group adds to the books of its iteration; answers with a hint are counted apart."""
    plain = [i for i, rollout in enumerate(group.rollouts) if not rollout.rationalised]
    rollouts = [group.rollouts[i] for i in plain]
    judged = [i for i in plain if not group.verdicts[i].abstains]
    verdicts = [group.verdicts[i] for i in judged]
    tally = count_verdicts([group.verdicts[i] for i in plain])
    tally.update(
        tokens=sum(len(rollout.token_ids) for rollout in rollouts),
        tokens_correct=sum(len(group.rollouts[i].token_ids) for i in plain if group.verdicts[i].success),
        formatted=sum(group.verdicts[i].format_reward > 0 for i in plain),
        truncated=sum(rollout.finish is Finish.LENGTH for rollout in rollouts),
        solved=int(any(verdict.success for verdict in verdicts)),
        distinct=len({normal_text(rollout.text) for rollout in rollouts}),
        hinted=len(group.rollouts) - len(plain),
        rationalised=sum(verdict.success for verdict in group.verdicts) - tally["correct"],
        surprisal_millionths=_millionths(-sum(rollout.log_probs) for rollout in rollouts),
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
    NaN when none was. `entropy` is that of a response token, in nats, estimated without bias by the mean of
    -log pi_old over all that was sampled (at temperature 1). `distinct` is the share of different traces,
    `solved` the share of prompts with a correct answer (pass@R), and `headroom` pass@R less pass@1: what
    exploration still finds beyond the average answer. With sampling.at_once, prompts that are hard get more
    answers than the others, so that `success` and `format` lie below those of the policy.
    `selection/<fate>` are counts, `rollout/length` tokens of a response.
    """
    rollouts, visits = max(1, book["rollouts"]), book["groups"] + book["refilled"]
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
        "rollout/length_correct": _ratio(book["tokens_correct"], book["correct"]),
        "rollout/length_wrong": _ratio(
            book["tokens"] - book["tokens_correct"], book["rollouts"] - book["correct"]
        ),
        "rollout/entropy": _ratio(book["surprisal_millionths"] / MILLION, book["tokens"]),
        "rollout/distinct": book["distinct"] / rollouts,
        "rollout/solved": _ratio(book["solved"], visits),
        "rollout/headroom": _ratio(book["solved"], visits) - book["correct"] / rollouts,
        "rollout/refilled": _ratio(book["refilled"], visits),
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
    return sum(round(MILLION * reward) for reward in rewards)


def _mean_judged(book: Tally, key: str) -> float:
    judged = book["rollouts"] - book["abstained"]
    return _ratio(book[key] / MILLION, judged)


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else nan
