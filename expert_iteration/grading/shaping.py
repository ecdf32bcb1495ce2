r"""The reward: whether the answer is right, and, if asked for, how it was said.

With the answer reward $a$ (1 if and only if correct, else partial credit below 1), qualities
$q_i \in [0, 1]$, their shares $w_i$ from the configuration and $w = \sum_i w_i \le 1/2$,

$$r = (1 - w)\,a + \sum_i w_i q_i$$

for a correct answer, and $1 - w$ times that for any other. So $r \in [0, 1]$; $r = a$ without shares; $r$
never falls when a quality or the answer gets better; and every correct answer ($r \ge 1 - w$) beats every
other one ($r \le (1 - w) (1 - (1 - w)(1 - a))$) by at least $(1 - a) / 4$, a step that float32 still sees.
Selection asks for success, not for $r$.
"""

from collections.abc import Sequence

from expert_iteration.config import RewardConfig
from expert_iteration.traces import runs
from expert_iteration.types import Verdict


def shaped(config: RewardConfig, verdict: Verdict, token_ids: Sequence[int], max_tokens: int) -> float:
    """The reward in [0, 1] of a response of `token_ids`, which could have been `max_tokens` long."""
    answer_share = 1 - (config.format + config.brevity + config.variety)
    reward = (
        answer_share * verdict.answer_reward
        + config.format * verdict.format_reward
        + config.brevity * brevity(token_ids, max_tokens)
        + config.variety * variety(token_ids)
    )
    # the shares of a perfect response may add up to a hair above 1
    return min(1.0, reward if verdict.success else answer_share * reward)


def brevity(token_ids: Sequence[int], max_tokens: int) -> float:
    """Share of `max_tokens` that was left unused; 0 for a worked response that is longer still."""
    return max(0.0, 1 - len(token_ids) / max_tokens)


def variety(token_ids: Sequence[int]) -> float:
    """Distinct runs of tokens, as a share of all; 1 for a response too short to repeat one."""
    all_runs = runs(token_ids)
    return len(set(all_runs)) / len(all_runs) if all_runs else 1.0
