"""Every rollout of a run, with its verdict and its fate, for people who want to read them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expert_iteration.reporting.jsonl import encode
from expert_iteration.types import Group, Rollout, Verdict

ABSTAINED = "abstained"
"""Fate of a rollout that the grader could not judge."""


class RolloutLog:
    """Appends to ``<folder>/iteration_0001.jsonl``, one line per rollout.

    A group is written in one piece, so several processes may share the folder. A run that is killed
    and resumed may write a group again: the last line of a (group_id, rollout_index) counts.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def write(self, group: Group, fates: Mapping[int, str]) -> None:
        """Append the rollouts of `group`.

        Args:
            fates: rollout index -> ``kept``, or why not. Rollouts whose verdict abstains need none.
        """
        rows = [
            _row(group, rollout, verdict, fates)
            for rollout, verdict in zip(group.rollouts, group.verdicts, strict=True)
        ]
        path = self._folder / f"iteration_{group.ticket.iteration:04d}.jsonl"
        with path.open("ab", buffering=0) as file:
            file.write("".join(encode(row) for row in rows).encode("ascii"))


def _row(group: Group, rollout: Rollout, verdict: Verdict, fates: Mapping[int, str]) -> dict[str, Any]:
    prompt = group.ticket.prompt
    return {
        "iteration": group.ticket.iteration,
        "group_id": group.ticket.group_id,
        "prompt_id": prompt.id,
        "rollout_index": rollout.index,
        "level": prompt.level,
        "question": prompt.question,
        "gold": prompt.gold,
        "response": rollout.text,
        "verdict": verdict.outcome.value,
        "reason": verdict.reason,
        "reward": None if verdict.abstains else verdict.reward,
        "format_reward": verdict.format_reward,
        "fate": ABSTAINED if verdict.abstains else fates[rollout.index],
        "policy_version": rollout.version_start,
        "policy_version_end": rollout.version_end,
        "finish": rollout.finish.value,
        "tokens": len(rollout.token_ids),
    }
