"""Do engine and trainer hold the same policy? What one has sampled, the other must find as likely.

Shape suffixes: T length of a row, N response tokens of all rows.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from expert_iteration.batching import RESPONSE, SAMPLED, group_rows
from expert_iteration.choices import Dtype
from expert_iteration.config import RunConfig
from expert_iteration.engine import Request, Rollouts
from expert_iteration.guard import Diverged
from expert_iteration.types import Group, Metrics, Outcome, Prompt, Rollout, Ticket, Verdict

TokenIds: TypeAlias = tuple[int, ...]
Answer: TypeAlias = tuple[TokenIds, Rollout]
"""A prompt, and what an engine said to it."""
Score: TypeAlias = Callable[[Sequence[TensorDictBase]], list[Tensor]]
"""The trainer's log-probs of each row: float32 [T], in nats, 0 on the prompt."""

LIMITS = {Dtype.float32: 1e-3, Dtype.bfloat16: 0.05}
"""Mean difference of log-probs, in nats, that rounding explains where the less exact side has this dtype."""

PROBE_TOKENS = 16
"""Response tokens of a probe, at most."""

FIRST_TOKENS = 128
"""Token ids that every vocabulary holds."""


OTHERWISE = (
    "It computes with other weights, or otherwise than the trainer (model.engine_dtype, model.autocast)."
)


class Mismatch(Diverged):
    """Engine and trainer disagree. Its only argument is the message, so that it can be pickled."""


class Sampler(Protocol):
    """What is verified: `Engine` is one, and so are all engines of a run together."""

    def sample(self, requests: Sequence[Request]) -> Mapping[str, list[Rollouts]]:
        """The answers of each engine, by its name."""
        ...


@dataclass(frozen=True, slots=True)
class Gap:
    """How far the engine's log-probs of what it sampled are from the trainer's, in nats."""

    mean: float
    """Mean absolute difference."""
    largest: float
    kl: float
    """KL(engine || trainer) of a token, by the estimator k3 of losses.py."""
    tokens: int

    @staticmethod
    def between(engine_N: Tensor, trainer_N: Tensor) -> "Gap":
        difference_N = engine_N.double() - trainer_N.double()
        kl_N = torch.exp(-difference_N) - 1 + difference_N
        size_N = difference_N.abs()
        return Gap(size_N.mean().item(), size_N.max().item(), kl_N.mean().item(), len(size_N))

    def within(self, limit: float) -> bool:
        """Whether the mean is at most `limit`; no number is not."""
        return self.mean <= limit

    @property
    def text(self) -> str:
        return (
            f"the log-probs of {self.tokens} sampled tokens differ by {self.mean:.2g} nats in the mean, "
            f"{self.largest:.2g} at most (KL {self.kl:.2g})"
        )


def limit_of(config: RunConfig) -> float:
    """Largest mean difference of log-probs that still counts as agreement, in nats."""
    if config.health.max_mismatch is not None:
        return config.health.max_mismatch
    model = config.model
    exact = model.engine_dtype is model.dtype is Dtype.float32 and not model.autocast
    return LIMITS[Dtype.float32 if exact else Dtype.bfloat16]


def rows_of(answers: Sequence[Answer]) -> list[TensorDict]:
    """The rows that a collector would make of `answers`."""
    verdict = Verdict(Outcome.CORRECT, "probe")
    rows = []
    for number, (prompt, rollout) in enumerate(answers):
        asked = Prompt(number, "", "", "", prompt, style="")
        group = Group(Ticket(number, 0, asked), (rollout,), (verdict,), (1.0,))
        rows += group_rows(group, [number], {0: 1.0})
    return rows


def gap_of(rows: Sequence[TensorDictBase], scores: Sequence[Tensor], shift: int = 0) -> Gap:
    """Compare what the engine noted in `rows` with what the trainer says, of the token `shift` places on."""
    early, late = max(0, -shift), max(0, shift)
    engine, trainer = [], []
    for row, score in zip(rows, scores, strict=True):
        sampled, scored = row[SAMPLED][row[RESPONSE]], score[row[RESPONSE]]
        engine.append(sampled[early : len(sampled) - late])
        trainer.append(scored[late : len(scored) - early])
    return Gap.between(torch.cat(engine), torch.cat(trainer))


def is_shifted(rows: Sequence[TensorDictBase], scores: Sequence[Tensor], limit: float) -> bool:
    """Whether engine and trainer agree on the neighbours of the tokens that they should agree on."""
    long = [(row, score) for row, score in zip(rows, scores, strict=True) if row[RESPONSE].sum() > 1]
    if not long:
        return False
    some_rows, some_scores = zip(*long, strict=True)
    return any(gap_of(some_rows, some_scores, shift).within(limit) for shift in (-1, 1))


def unseen(prompts: Sequence[TokenIds], number: int) -> list[TokenIds]:
    """`prompts` with another first token, which depends on `number`: no cached prefix is theirs."""
    first = number % FIRST_TOKENS
    return [(first if prompt[0] != first else first + 1, *prompt[1:]) for prompt in prompts]


def probe_requests(prompts: Sequence[TokenIds], max_tokens: int) -> list[Request]:
    """One sampled answer to each prompt, at temperature 1: its log-probs are those of the policy itself."""
    return [
        Request(prompt, n=1, temperature=1.0, max_tokens=min(PROBE_TOKENS, max_tokens), seed=number)
        for number, prompt in enumerate(prompts)
    ]


def verify(
    engines: Sequence[Sampler], score: Score, prompts: Sequence[TokenIds], version: int, config: RunConfig
) -> Metrics:
    """Have every engine answer `prompts` with the weights it just got, and the trainer score the answers.

    Half of what is asked is new to the engines: where they agree on that half alone, their prefix caches
    hold what the weights before have computed.

    Returns:
        `push/mismatch_*` of the engine that is farthest from the trainer.

    Raises:
        Mismatch: one is farther than `limit_of` allows; the message names it and the cause.
    """
    begun, limit = time.perf_counter(), limit_of(config)
    requests = probe_requests([*prompts, *unseen(prompts, version)], config.sampling.max_tokens)
    gaps = []
    for engine in engines:
        for name, groups in engine.sample(requests).items():
            answers = [(request.prompt, group[0]) for request, group in zip(requests, groups, strict=True)]
            rows = rows_of(answers)
            scores = score(rows)
            gaps.append(gap_of(rows, scores))
            if cause := _cause(answers, rows, scores, version, limit):
                raise Mismatch(
                    f"{name} and the trainer disagree after the push of policy version {version}: "
                    f"{gaps[-1].text}, and {limit:g} is allowed in the mean. {cause} "
                    "`python scripts/doctor.py` with the overrides of this run looks closer; "
                    "health.max_mismatch allows more, health.verify_push_every=0 does not look."
                )
    worst = max(gaps, key=lambda gap: gap.mean)
    return {
        "push/mismatch_mean": worst.mean,
        "push/mismatch_max": worst.largest,
        "push/mismatch_kl": worst.kl,
        "push/verify_seconds": time.perf_counter() - begun,
    }


def _cause(
    answers: Sequence[Answer],
    rows: Sequence[TensorDictBase],
    scores: Sequence[Tensor],
    version: int,
    limit: float,
) -> str | None:
    """Why engine and trainer disagree; None: they do not."""
    half = len(rows) // 2
    known, new = gap_of(rows[:half], scores[:half]), gap_of(rows[half:], scores[half:])
    stamps = {rollout.version_start for _, rollout in answers}
    if stamps != {version}:
        return f"It answers as policy version {min(stamps)}: the push has not reached it."
    if known.within(limit) and new.within(limit):
        return None
    if new.within(limit):
        return "They agree on prompts that it had not seen before: its prefix cache was not reset."
    if not math.isfinite(known.mean + new.mean):
        return "Log-probs are not finite: its weights, or the trainer's, are broken."
    if is_shifted(rows, scores, limit):
        return "They agree on the tokens beside: the response masks are off by one."
    return OTHERWISE
