"""Every rollout of a run, with its verdict and its fate, for people who want to read them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from expert_iteration.grading import GRADER_VERSION
from expert_iteration.reporting.jsonl import encode, read_rows, replace_file
from expert_iteration.types import Group, Rollout

ABSTAINED = "abstained"
"""Fate of a rollout that the grader could not judge."""


class RolloutLog:
    """Appends to ``<folder>/iteration_0001.jsonl``, one line per rollout.

    A group is written in one piece, so several processes may share the folder.
    """

    def __init__(self, folder: Path, with_tokens: bool = False) -> None:
        """With tokens, rows hold the response's `token_ids`, and log pi_old of each in nats."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._with_tokens = with_tokens

    def write(self, group: Group, fates: Mapping[int, str]) -> None:
        """Append the rollouts of `group`.

        Args:
            fates: rollout index -> ``kept``, or why not. Rollouts whose verdict abstains need none.
        """
        rows = [_row(group, i, fates) for i in range(len(group.rollouts))]
        if self._with_tokens:
            rows = [row | _tokens(rollout) for row, rollout in zip(rows, group.rollouts, strict=True)]
        path = self._folder / file_of(group.ticket.iteration)
        with path.open("ab", buffering=0) as file:
            file.write("".join(encode(row) for row in rows).encode("ascii"))

    def keep(self, stands: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop what a killed run wrote down after the checkpoint that is gone on from.

        Lines that were torn by the kill go with it.
        """
        for path in self._folder.glob("iteration_*.jsonl"):
            replace_file(path, "".join(encode(row) for row in read_rows(path) if stands(row)))


def file_of(iteration: int) -> str:
    """Name of the file that holds the rollouts of an iteration."""
    return f"iteration_{iteration:04d}.jsonl"


def _row(group: Group, i: int, fates: Mapping[int, str]) -> dict[str, Any]:
    prompt, rollout, verdict = group.ticket.prompt, group.rollouts[i], group.verdicts[i]
    return {
        "iteration": group.ticket.iteration,
        "group_id": group.ticket.group_id,
        "prompt_id": prompt.id,
        "rollout_index": rollout.index,
        "task": prompt.task,
        "level": prompt.level,
        "subject": prompt.subject,
        "question": prompt.question,
        "gold": prompt.gold,
        "response": rollout.text,
        "verdict": verdict.outcome.value,
        "reason": verdict.reason,
        "grader_version": GRADER_VERSION,
        "reward": None if verdict.abstains else group.rewards[i],
        "answer_reward": None if verdict.abstains else verdict.answer_reward,
        "format_reward": verdict.format_reward,
        "fate": ABSTAINED if verdict.abstains else fates[rollout.index],
        "policy_version": rollout.version_start,
        "policy_version_end": rollout.version_end,
        "policy_versions": [list(span) for span in rollout.versions],
        "finish": rollout.finish.value,
        "tokens": len(rollout.token_ids),
    }


def _tokens(rollout: Rollout) -> dict[str, Any]:
    return {
        "token_ids": list(rollout.token_ids),
        "log_probs": [round(log_prob, 3) for log_prob in rollout.log_probs],
    }
