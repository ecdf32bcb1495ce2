"""Engine against trainer: after a push that changes every weight, both must be the same policy.

Each disagreement is told by what goes with it: an engine with old weights repeats what it said before the
push, a stale prefix cache spoils only prompts that were seen, masks off by one agree with the next token.
"""

from collections.abc import Iterator, Sequence

import torch
from tensordict import TensorDict
from torch import Tensor

from expert_iteration.agreement import (
    OTHERWISE,
    Answer,
    Gap,
    TokenIds,
    gap_of,
    is_shifted,
    unseen,
)
from expert_iteration.batching import RESPONSE, TOKENS
from expert_iteration.doctor.finding import Finding, Status, green, red, skipped
from expert_iteration.doctor.subjects import Batch, ExaminedEngine, ExaminedPolicy
from expert_iteration.engine import Request
from expert_iteration.types import Finish, Rollout
from expert_iteration.weights import DamagedWeights, HostTransport, push

CHECKS = (
    "masks",
    "padding",
    "initial weights",
    "checksum",
    "log-probs",
    "greedy tokens",
    "prefix cache",
    "end of sequence",
)

FOUNDATIONS = ("masks", "padding", "initial weights", "checksum")
"""Checks that all later ones rest on."""

MAX_TOKENS = 24
"""Response tokens of an answer, at most."""
ANSWERS = 4
"""Sampled answers to each prompt."""
VISIBLE = 10.0
"""Times the limit by which a push must change the log-probs, so that old weights cannot pass for new ones."""
LARGEST = 40.0
"""Times the limit by which a single token may differ."""

REPORT = "keep to the pinned versions (requirements/); if these are they, report it"
SAME_END = "eos_token of the tokenizer and eos_token_id of config.json must agree"
PRECISION = "use model.engine_dtype=float32 to see whether precision is the cause; " + REPORT


def examine(engine: ExaminedEngine, policy: ExaminedPolicy, batch: Batch) -> Iterator[Finding]:
    """All CHECKS in order; after a red one of the FOUNDATIONS, the rest is skipped."""
    examination = _Examination(engine, policy, batch)
    for index, name in enumerate(CHECKS):
        is_broken = False
        try:
            finding = examination.check(name)
        except (RuntimeError, TimeoutError, ValueError) as error:
            finding, is_broken = red(name, f"the engine or the trainer broke: {error}", REPORT), True
        yield finding
        if finding.status is Status.RED and (is_broken or name in FOUNDATIONS):
            yield from (skipped(later, f"it rests on {name}") for later in CHECKS[index + 1 :])
            return


class _Examination:
    """Checks that build on each other: before the first push, after it, and after a second one."""

    def __init__(self, engine: ExaminedEngine, policy: ExaminedPolicy, batch: Batch) -> None:
        self._engine, self._policy, self._batch = engine, policy, batch
        self._before: list[Answer] = []
        """Answers to the prompts before the push."""
        self._after: list[Answer] = []
        """Answers to the same prompts after it."""
        self._unseen: list[Answer] = []
        """Answers after it to prompts that the engine had not seen."""

    def check(self, name: str) -> Finding:
        return {
            "masks": self._masks,
            "padding": self._padding,
            "initial weights": self._initial,
            "checksum": self._push,
            "log-probs": self._log_probs,
            "greedy tokens": self._greedy,
            "prefix cache": self._prefix_cache,
            "end of sequence": self._end,
        }[name]()

    def _masks(self) -> Finding:
        """Masks by length: pad and end-of-sequence tokens inside a response are part of it."""
        for prompt, rollout in self._crafted():
            [row] = self._batch.rows_of([(prompt, rollout)])
            expected = torch.arange(len(prompt) + len(rollout.token_ids)) >= len(prompt)
            if not torch.equal(row[RESPONSE], expected):
                return red("masks", _mask_problem(row, expected, self._batch), REPORT)
        return green("masks", "they cover each response by its length, pad and end tokens included")

    def _padding(self) -> Finding:
        """A row scored beside longer ones, padded, and alone."""
        rows = self._batch.rows_of(self._crafted())
        alone = [self._policy.score([row])[0][row[RESPONSE]] for row in rows]
        beside = [score[row[RESPONSE]] for row, score in zip(rows, self._policy.score(rows), strict=True)]
        gap = Gap.between(torch.cat(alone), torch.cat(beside))
        if gap.within(self._batch.limit):
            return green("padding", f"{len(rows)} rows score the same beside longer ones as alone")
        cause = (
            f"the trainer scores a row by what stands beside it: by up to {gap.largest:.2g} nats otherwise"
        )
        return red("padding", cause, REPORT)

    def _crafted(self) -> list[Answer]:
        """Responses with pad and end-of-sequence tokens in the middle, as no engine would give."""
        pad, ends = self._batch.pad, sorted(self._batch.ends)
        answers = []
        for prompt in self._batch.prompts:
            response = (prompt[0], pad, *ends, prompt[0], pad)
            rollout = Rollout(0, response, (-1.0,) * len(response), "", Finish.LENGTH, 0, 0)
            answers.append((prompt, rollout))
        return answers

    def _initial(self) -> Finding:
        name = "initial weights"
        self._before = self._ask(self._batch.prompts)
        for _, rollout in self._before:
            if len(rollout.token_ids) != len(rollout.log_probs) or not rollout.token_ids:
                cause = f"{len(rollout.token_ids)} tokens came with {len(rollout.log_probs)} log-probs"
                return red(name, cause, REPORT)
        rows, scores = self._scored(self._before)
        gap = gap_of(rows, scores)
        if gap.within(self._batch.limit):
            return green(name, gap.text)
        return red(name, f"{gap.text}: {self._why(rows, scores)}", PRECISION)

    def _push(self) -> Finding:
        """Change the trainer's weights so that it can be seen, and push them."""
        name, rows = "checksum", self._batch.rows_of(self._before)
        self._policy.disturb()
        visible = gap_of(rows, self._policy.score(rows)).mean
        if not visible > VISIBLE * self._batch.limit:
            cause = (
                f"other weights change log-probs by {visible:.2g} nats only: nothing could be told by them"
            )
            return red(name, cause, "lower health.max_mismatch")
        try:
            transport = HostTransport(self._batch.dtype, checksums=True)
            report = push(self._policy.named_weights(), [self._engine], 1, transport)
        except DamagedWeights as error:
            return red(name, str(error), "check the machine's memory, then try again")
        self._after = self._ask(self._batch.prompts)
        self._unseen = self._ask(unseen(self._batch.prompts, 1))
        sent = f"{report.bytes / 2**20:,.1f} MiB in {report.buckets} buckets"
        return green(name, f"{sent} arrived as they were sent, in {report.seconds:.2f} s")

    def _log_probs(self) -> Finding:
        """Of prompts that were new to the engine, which no prefix cache can spoil."""
        rows, scores = self._scored(self._unseen)
        gap = gap_of(rows, scores)
        if gap.within(self._batch.limit) and gap.largest <= LARGEST * self._batch.limit:
            return green("log-probs", gap.text)
        if self._repeats_itself():
            cause = "the engine answers as before the push: it still computes with the old weights"
            return red("log-probs", cause, REPORT)
        return red("log-probs", f"{gap.text}: {self._why(rows, scores)}", PRECISION)

    def _greedy(self) -> Finding:
        """The engine's greedy tokens must be the trainer's, but for near ties that rounding decides."""
        answers = self._ask(unseen(self._batch.prompts, 2), temperature=0.0, n=1)
        rows, scores = self._scored(answers)
        short = [
            self._policy.best(row) - score[row[RESPONSE]] for row, score in zip(rows, scores, strict=True)
        ]
        behind = torch.cat(short)
        allowed = LARGEST * self._batch.limit
        if bool((behind <= allowed).all()):
            exact = int((behind <= 0).sum())
            rest = "" if exact == len(behind) else f", the others up to {behind.max():.2g} nats behind it"
            return green("greedy tokens", f"{exact} of {len(behind)} are the trainer's first choice{rest}")
        cause = (
            f"{int((~(behind <= allowed)).sum())} of {len(behind)} tokens are up to {behind.max():.2g} nats "
            "less likely for the trainer than its own choice"
        )
        return red("greedy tokens", cause, PRECISION)

    def _prefix_cache(self) -> Finding:
        """The longest prompt, which was seen before the push, and the same with another first token."""
        longest = max(map(len, self._batch.prompts))
        seen, new = (
            gap_of(*self._scored([answer for answer in answers if len(answer[0]) == longest]))
            for answers in (self._after, self._unseen)
        )
        limit = self._batch.limit
        if seen.within(limit):
            detail = f"{longest} tokens that were seen before the push are read anew: {seen.text}"
            return green("prefix cache", detail)
        if new.within(limit):
            cause = (
                "a prompt that was seen before the push is answered from what the old weights made of it: "
                f"{seen.text}, but by {new.mean:.2g} for one that was not"
            )
            return red("prefix cache", cause, "the prefix cache must be reset by every push; " + REPORT)
        return skipped("prefix cache", "prompts that the engine had not seen disagree too, see log-probs")

    def _end(self) -> Finding:
        """Weights that make answers end: the end token is part of them, comes last, and has its log-prob."""
        name = "end of sequence"
        self._policy.favour_end(self._batch.rows_of(self._after))
        push(self._policy.named_weights(), [self._engine], 2, HostTransport(self._batch.dtype))
        answers = self._ask(unseen(self._batch.prompts, 3))
        ends = self._batch.ends
        if any(ends.intersection(rollout.token_ids[:-1]) for _, rollout in answers):
            cause = "an answer goes on after its end-of-sequence token: the engine waits for another one"
            return red(name, cause, SAME_END)
        ended = [(prompt, rollout) for prompt, rollout in answers if rollout.finish is Finish.STOP]
        if not ended:
            cause = (
                f"none of {len(answers)} answers ended, though the pushed weights make the end token likely"
            )
            return red(name, cause, SAME_END)
        if any(not rollout.token_ids or rollout.token_ids[-1] not in ends for _, rollout in ended):
            cause = "an answer that ended does not hold the end-of-sequence token: it would never be learned"
            return red(name, cause, REPORT)
        _, scores = self._scored(ended)
        last = Gap.between(
            torch.tensor([rollout.log_probs[-1] for _, rollout in ended]),
            torch.stack([score[-1] for score in scores]),
        )
        if last.within(self._batch.limit):
            return green(name, f"{len(ended)} of {len(answers)} answers ended with it, and {last.text}")
        return red(name, f"of the end-of-sequence token {last.text}", PRECISION)

    def _ask(self, prompts: Sequence[TokenIds], temperature: float = 1.0, n: int = ANSWERS) -> list[Answer]:
        requests = [
            Request(prompt, n, temperature, MAX_TOKENS, seed=100 * number)
            for number, prompt in enumerate(prompts)
        ]
        groups = self._engine.generate(requests, self._batch.wait_limit)
        return [
            (request.prompt, rollout)
            for request, group in zip(requests, groups, strict=True)
            for rollout in group
        ]

    def _scored(self, answers: Sequence[Answer]) -> tuple[list[TensorDict], list[Tensor]]:
        rows = self._batch.rows_of(answers)
        return rows, self._policy.score(rows)

    def _why(self, rows: Sequence[TensorDict], scores: Sequence[Tensor]) -> str:
        if is_shifted(rows, scores, self._batch.limit):
            return "they agree on the tokens beside, so masks or log-probs are off by one"
        return OTHERWISE[0].lower() + OTHERWISE[1:].rstrip(".")

    def _repeats_itself(self) -> bool:
        """The same prompts and seeds had the same answers before and after."""
        before, after = ([rollout.token_ids for _, rollout in some] for some in (self._before, self._after))
        return before == after


def _mask_problem(row: TensorDict, expected: Tensor, batch: Batch) -> str:
    mask, tokens = row[RESPONSE], row[TOKENS]
    starts = [int(values.int().argmax()) for values in (mask, expected)]
    if starts[0] != starts[1]:
        return f"a response mask starts at token {starts[0]}, but the response at token {starts[1]}"
    lost = set(tokens[expected & ~mask].tolist())
    names = {"pad": {batch.pad}, "end-of-sequence": batch.ends}
    which = " and ".join(name for name, ids in names.items() if lost & ids) or "some"
    return f"a response mask leaves out {which} tokens: it does not come from lengths"
