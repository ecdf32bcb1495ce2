"""Samples answers, has them judged and scored, and hands complete groups to the buffer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from tensordict import TensorDict
from torch import Tensor

from expert_iteration.advantages import advantages
from expert_iteration.algorithms import Keep, Source, algorithm_of, answers_at_once, objective_of
from expert_iteration.batching import REFERENCE, group_rows
from expert_iteration.config import RunConfig
from expert_iteration.engine import Engine
from expert_iteration.faults import reach
from expert_iteration.grading import Grader, Response, shaped
from expert_iteration.room import Room
from expert_iteration.sampling import Answered, Answers, Ask, demonstration, request
from expert_iteration.second_chances import SecondChances, joined, rationalised
from expert_iteration.timeline import Timeline
from expert_iteration.traces import fingerprint
from expert_iteration.types import Group, Prompt, Rollout, Ticket, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


ScoredGroup: TypeAlias = tuple[Group, list[TensorDict]]
"""A group, and the rows of its answers that were judged."""


class GroupSink(Protocol):
    """Where finished groups go: the buffer, here or in another process."""

    def add(self, groups: Sequence[ScoredGroup], wasted: Sequence[Group] = ()) -> None:
        """Take groups that were not taken before, and note those whose place another prompt takes."""
        ...


class Scorer(Protocol):
    """Gives reference log-probs: the reference model, here or in another process."""

    def log_probs(self, rows: list[TensorDict]) -> list[Tensor]: ...


class Collector:
    """One engine and one grader, and the path of a group from ticket to buffer."""

    def __init__(
        self,
        config: RunConfig,
        engine: Engine,
        tokenizer: "PreTrainedTokenizerFast",
        sink: GroupSink,
        reference: Scorer | None,
        timeline: Timeline | None = None,
    ) -> None:
        self._config = config
        self._engine = engine
        self._tokenizer = tokenizer
        self._sink = sink
        self._reference = reference
        self._timeline = timeline or Timeline()
        self._grader = Grader(config.grading)
        self._algorithm = algorithm_of(config)
        self._objective = objective_of(config)
        self._chances = SecondChances(config)
        self._room = Room(lambda: engine.unfinished, config.placement.infer.max_num_seqs)

    def collect(self, tickets: Sequence[Ticket]) -> None:
        """Bring the groups of `tickets` into the buffer, each as soon as it is finished."""
        if self._algorithm.source is Source.DATASET:
            self._sink.add(self._score(self._judge(self._demonstrations(tickets))))
            return
        with self._room.taken(len(tickets) * answers_at_once(self._config)) as arrived:
            reach("collector.generate")
            answers = Answers(self._config, self._engine)
            answers.add([Ask(ticket) for ticket in tickets])
            arrived()
            self._bring_in(answers, tickets[0].iteration)

    def await_room(self) -> bool:
        """Wait until the engine is about to run out of work; whether it is, well before `wait_limit`."""
        return self._room.wait(self._config.wait_limit / 2)

    def _bring_in(self, answers: Answers, iteration: int) -> None:
        while answers:
            with self._timeline.span("generate", iteration):
                answered = answers.take()
            with self._timeline.span("grade", iteration):
                sorted_ = self._chances.sort(self._judge(answered))
            answers.add(sorted_.again)
            with self._timeline.span("score", iteration):
                scored = self._score(sorted_.finished)
            reach("collector.store")
            with self._timeline.span("store", iteration):
                self._sink.add(scored, sorted_.wasted)

    def answer(
        self, prompts: Sequence[Prompt], temperature: float, seed: int
    ) -> list[tuple[Rollout, Verdict]]:
        """One judged answer to each prompt, for evaluation; nothing enters the buffer."""
        requests = [
            request(self._config, prompt, prompt.token_ids, 1, temperature, seed + prompt.id)
            for prompt in prompts
        ]
        reach("collector.generate")
        with self._timeline.span("evaluate"), self._room.taken(len(requests)) as arrived:
            futures = self._engine.submit(requests)
            arrived()
            rollouts = [future.result(timeout=self._config.wait_limit)[0] for future in futures]
        with self._timeline.span("grade"):
            verdicts = self._grader.grade(
                [response_of(prompt, rollout) for rollout, prompt in zip(rollouts, prompts, strict=True)]
            )
        return list(zip(rollouts, verdicts, strict=True))

    def close(self) -> None:
        self._room.close()
        self._grader.close()
        self._engine.close()

    def _demonstrations(self, tickets: Sequence[Ticket]) -> list[Answered]:
        version = self._engine.version
        return [
            (Ask(ticket), (demonstration(self._config, self._tokenizer, ticket.prompt, version),))
            for ticket in tickets
        ]

    def _judge(self, answered: Sequence[Answered]) -> list[Group]:
        """Grade all answers in one call: the pool works on them side by side."""
        verdicts = iter(
            self._grader.grade(
                [
                    response_of(ask.ticket.prompt, rollout)
                    for ask, rollouts in answered
                    for rollout in rollouts
                ]
            )
        )
        return [self._group(ask, rollouts, [next(verdicts) for _ in rollouts]) for ask, rollouts in answered]

    def _group(self, ask: Ask, rollouts: Sequence[Rollout], verdicts: Sequence[Verdict]) -> Group:
        if ask.hinted:
            rollouts, verdicts = rationalised(rollouts, verdicts, self._config.rationalisation.forbidden)
        if ask.before is not None:
            rollouts, verdicts = joined(ask.before, rollouts, verdicts)
        reward, max_tokens = self._config.reward, self._config.sampling.max_tokens
        rewards = [
            shaped(reward, verdict, rollout.token_ids, max_tokens)
            for rollout, verdict in zip(rollouts, verdicts, strict=True)
        ]
        return Group(ask.ticket, tuple(rollouts), tuple(verdicts), tuple(rewards))

    def _score(self, groups: Sequence[Group]) -> list[ScoredGroup]:
        """Rows of each group; those that may be kept carry reference log-probs when a loss reads them."""
        scored = [(group, self._rows(group)) for group in groups]
        if self._reference is None:
            return scored
        gated = self._config.selection.min_reward is None and self._algorithm.keep is Keep.SUCCESSFUL
        candidates = [row for _, rows in scored for row in rows if not gated or bool(row["success"])]
        for row, log_probs in zip(candidates, self._reference.log_probs(candidates), strict=True):
            row[REFERENCE] = log_probs
        return scored

    def _rows(self, group: Group) -> list[TensorDict]:
        earned = advantages(group, self._objective.advantage, self._config.loss.normalize_std)
        same = self._config.selection.duplicates
        return group_rows(group, [fingerprint(rollout.text, same) for rollout in group.rollouts], earned)


def response_of(prompt: Prompt, rollout: Rollout) -> Response:
    """What the grader is asked about an answer to `prompt`."""
    return Response(prompt.style, rollout.text, prompt.gold)
