"""What flows through the system: a prompt is visited, answered, judged, and kept or not.

Everything here is frozen and made of plain Python values, so it can cross a process border, be
written as JSON and be compared in a test.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

Metrics: TypeAlias = dict[str, float]
"""``stage/quantity`` -> value, as written to ``metrics.jsonl``."""

Tally: TypeAlias = Counter[str]
"""Counts that add up over groups, collectors and iterations (``rollouts``, ``correct``, ...)."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question, ready to be sent to an engine."""

    id: int
    """Row number in its dataset: the same in every run on the same data. In a mixture, counted on."""
    question: str
    gold: str
    text: str
    """The rendered template, whose tokens are `token_ids`."""
    token_ids: tuple[int, ...]
    style: str
    """Answer format that the grader expects."""
    task: str = ""
    """Dataset it came from; breaks the evaluation of a mixture down."""
    stop: tuple[str, ...] = ()
    """Strings that end a response; they stay part of it."""
    level: str = ""
    """Difficulty used to break evaluations down; empty when the dataset has none."""
    subject: str = ""
    """Likewise, the field of the question."""
    hinted_token_ids: tuple[int, ...] | None = None
    """The same prompt with the right answer as a hint, for rationalisation; never trained on."""
    value: float | None = None
    """Optimal value V* of the prompt, for methods that measure advantages from it."""
    demonstration: str | None = None
    """A worked response in the format of the task, for supervised fine-tuning."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One visit of one prompt: the order to sample a group of answers."""

    group_id: int
    """Number of this visit in the run; unique, and the key of the group everywhere."""
    iteration: int
    """1 for the first."""
    prompt: Prompt
    spares: tuple[Prompt, ...] = ()
    """Prompts that may take its place, one after the other, if its answers carry no signal."""
    temperature: float | None = None
    """Of its answers; None: sampling.temperature."""


class Finish(StrEnum):
    """Why a response ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled answer, exactly as sampled: never re-tokenised."""

    index: int
    """Position in its group, 0 .. rollouts_per_prompt - 1."""
    token_ids: tuple[int, ...]
    """Response tokens; the end-of-sequence token that was sampled is part of them."""
    log_probs: tuple[float, ...]
    """log pi_old(o_t) of each response token, in nats."""
    text: str
    finish: Finish
    version_start: int
    """Policy version that sampled the first token."""
    version_end: int
    """Policy version that sampled the last token; differs after a push in flight."""
    rationalised: bool = False
    """It was sampled with the right answer as a hint, which is no part of what is trained on."""
    spans: tuple[tuple[int, int], ...] = ()
    """(policy version, number of tokens) of the stretches that one version sampled each, in order; empty:
    all are of `version_start`."""

    @property
    def versions(self) -> tuple[tuple[int, int], ...]:
        """`spans`, never empty."""
        return self.spans or ((self.version_start, len(self.token_ids)),)


class Outcome(StrEnum):
    """What the grader says of one answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The grader's judgement of one rollout. Timeouts and errors abstain: they are no reward 0."""

    outcome: Outcome
    reason: str
    format_reward: float = 0.0
    """1 when the response has the format that the task asks for."""
    partial: float = 0.0
    """Credit in [0, 1) of an answer that is not correct: the share of IFEval's instructions it meets."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What the style counts besides: IFEval's instructions, and how many are met strictly and loosely."""

    @property
    def success(self) -> bool:
        return self.outcome is Outcome.CORRECT

    @property
    def abstains(self) -> bool:
        return self.outcome in (Outcome.TIMEOUT, Outcome.ERROR)

    @property
    def answer_reward(self) -> float:
        """1 for a correct answer, else its partial credit."""
        return 1.0 if self.success else self.partial


@dataclass(frozen=True, slots=True)
class Group:
    """The graded answers of one visit. `verdicts[i]` judges `rollouts[i]`, which earns `rewards[i]`."""

    ticket: Ticket
    rollouts: tuple[Rollout, ...]
    verdicts: tuple[Verdict, ...]
    rewards: tuple[float, ...]
    """Shaped rewards in [0, 1]; success decides what may be kept, they decide what is preferred."""

    @property
    def judged(self) -> list[int]:
        """Positions of the rollouts on which the grader did not abstain."""
        return [i for i, verdict in enumerate(self.verdicts) if not verdict.abstains]


@dataclass(frozen=True, slots=True)
class Pace:
    """An order to the learner: which optimizer steps to take, and how fast."""

    first_step: int
    """Number of the first one in the run, from 0."""
    steps: int
    progress: tuple[float, float]
    """Share of the schedule that lies behind before the first step and after the last, in [0, 1]."""
    learning_rate: float
    """Peak of the schedule."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """What a push has done to the answers that were under way."""

    stalled: float = 0.0
    """Seconds for which an engine with work generated nothing; of several engines, the longest."""
    aborted: int = 0
    """Answers that were given up and ordered again."""
    resumed: int = 0
    """Answers that went on with the new weights."""

    @staticmethod
    def of_all(parts: Sequence["Interruption"]) -> "Interruption":
        return Interruption(
            max((part.stalled for part in parts), default=0.0),
            sum(part.aborted for part in parts),
            sum(part.resumed for part in parts),
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the driver sees of the buffer: counts, no tensors."""

    totals: Tally
    """Counts since the run began: those of books.py, and the fates of selection."""
    live: int
    """Samples held now."""
    uses_left: int
    """Reads left on them."""
    steps_left: int
    """Optimizer steps that those reads make."""
    consumed: int
    """Reads done, and reads given up because the sample grew too old, since the run began."""
    expired: int
    """Samples dropped because they grew too old with reads left."""
    oldest_age: int
    """Policy versions that the oldest sample held is behind."""
