"""Samples answers, has them judged and scored, and hands complete groups to the buffer."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol, TypeAlias

from tensordict import TensorDict
from torch import Tensor

from expert_iteration.algorithms import Source, algorithm_of
from expert_iteration.batching import REFERENCE, group_rows
from expert_iteration.config import RunConfig
from expert_iteration.engine import Engine, Request
from expert_iteration.grading import Grader, Response, shaped
from expert_iteration.types import Finish, Group, Prompt, Rollout, Ticket, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


ScoredGroup: TypeAlias = tuple[Group, list[TensorDict]]
"""A group, and the rows of its answers that were judged."""

GATHER = 0.1
"""Seconds for which finished groups wait for company, so that one call to the buffer carries many."""


class GroupSink(Protocol):
    """Where finished groups go: the buffer, here or in another process."""

    def add(self, groups: Sequence[ScoredGroup]) -> None:
        """Take groups that were not taken before."""
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
    ) -> None:
        self._config = config
        self._engine = engine
        self._tokenizer = tokenizer
        self._sink = sink
        self._reference = reference
        self._grader = Grader(config.grading)
        self._answers = {Source.POLICY: self._sample, Source.DATASET: self._demonstrate}

    def collect(self, tickets: Sequence[Ticket]) -> None:
        """Bring the groups of `tickets` into the buffer, each as soon as it is finished."""
        for finished in self._answers[algorithm_of(self._config).source](tickets):
            self._sink.add(self._score(self._judge(finished)))

    def answer(
        self, prompts: Sequence[Prompt], temperature: float, seed: int
    ) -> list[tuple[Rollout, Verdict]]:
        """One judged answer to each prompt, for evaluation; nothing enters the buffer."""
        requests = [self._request(prompt, 1, temperature, seed + prompt.id) for prompt in prompts]
        futures = self._engine.submit(requests)
        rollouts = [future.result(timeout=self._config.wait_limit)[0] for future in futures]
        verdicts = self._grader.grade(
            [response_of(prompt, rollout) for rollout, prompt in zip(rollouts, prompts, strict=True)]
        )
        return list(zip(rollouts, verdicts, strict=True))

    def close(self) -> None:
        self._grader.close()
        self._engine.close()

    def _request(self, prompt: Prompt, n: int, temperature: float, seed: int) -> Request:
        sampling = self._config.sampling
        return Request(
            prompt=prompt.token_ids,
            n=n,
            temperature=temperature,
            max_tokens=sampling.max_tokens,
            min_tokens=sampling.min_tokens,
            stop=prompt.stop,
            seed=seed,
        )

    def _sample(self, tickets: Sequence[Ticket]) -> Iterator[list[tuple[Ticket, tuple[Rollout, ...]]]]:
        """Sampled groups, in bundles of those that finished together."""
        config = self._config
        requests = [
            self._request(
                ticket.prompt,
                config.rollouts_per_prompt,
                config.sampling.temperature,
                visit_seed(config.seed, ticket),
            )
            for ticket in tickets
        ]
        waiting: dict[Future[tuple[Rollout, ...]], Ticket] = dict(
            zip(self._engine.submit(requests), tickets, strict=True)
        )
        while waiting:
            done, _ = wait(waiting, timeout=config.wait_limit, return_when=FIRST_COMPLETED)
            if not done:
                raise TimeoutError(
                    f"the engine finished none of {len(waiting)} groups in {config.wait_limit:.0f} s "
                    "(wait_limit); is it out of memory, or max_tokens too large?"
                )
            done |= wait(waiting, timeout=GATHER).done
            bundle = [(waiting.pop(future), future.result()) for future in done]
            yield sorted(bundle, key=lambda pair: pair[0].group_id)

    def _demonstrate(self, tickets: Sequence[Ticket]) -> Iterator[list[tuple[Ticket, tuple[Rollout, ...]]]]:
        """The dataset's own worked responses, as if the policy had said them."""
        yield [(ticket, (self._demonstration(ticket.prompt),)) for ticket in tickets]

    def _demonstration(self, prompt: Prompt) -> Rollout:
        text = prompt.demonstration or ""
        eos = self._tokenizer.eos_token_id
        token_ids = (*self._tokenizer.encode(text, add_special_tokens=False), eos)
        token_ids = token_ids[: self._config.model.max_length - len(prompt.token_ids)]
        finish = Finish.STOP if token_ids[-1] == eos else Finish.LENGTH
        version = self._engine.version
        return Rollout(0, token_ids, (0.0,) * len(token_ids), text, finish, version, version)

    def _judge(self, finished: Iterable[tuple[Ticket, tuple[Rollout, ...]]]) -> list[Group]:
        """Grade all answers of `finished` in one call: the pool works on them side by side."""
        finished = list(finished)
        verdicts = iter(
            self._grader.grade(
                [response_of(ticket.prompt, rollout) for ticket, rollouts in finished for rollout in rollouts]
            )
        )
        return [
            self._group(ticket, rollouts, tuple(next(verdicts) for _ in rollouts))
            for ticket, rollouts in finished
        ]

    def _group(self, ticket: Ticket, rollouts: tuple[Rollout, ...], verdicts: tuple[Verdict, ...]) -> Group:
        reward, max_tokens = self._config.reward, self._config.sampling.max_tokens
        rewards = (
            shaped(reward, verdict, rollout.token_ids, max_tokens)
            for rollout, verdict in zip(rollouts, verdicts, strict=True)
        )
        return Group(ticket, rollouts, verdicts, tuple(rewards))

    def _score(self, groups: Sequence[Group]) -> list[ScoredGroup]:
        """Rows of each group; those that may be kept carry reference log-probs when a loss reads them."""
        scored = [
            (group, group_rows(group, [fingerprint(r.text) for r in group.rollouts])) for group in groups
        ]
        if self._reference is None:
            return scored
        open_gate = self._config.selection.min_reward is not None
        candidates = [row for _, rows in scored for row in rows if open_gate or bool(row["success"])]
        for row, log_probs in zip(candidates, self._reference.log_probs(candidates), strict=True):
            row[REFERENCE] = log_probs
        return scored


def response_of(prompt: Prompt, rollout: Rollout) -> Response:
    """What the grader is asked about an answer to `prompt`."""
    return Response(prompt.style, rollout.text, prompt.gold)


def visit_seed(seed: int, ticket: Ticket) -> int:
    """Seed of one group's sampling: a function of (run seed, iteration, prompt), in [0, 2^31)."""
    return _hash(f"{seed}/{ticket.iteration}/{ticket.prompt.id}") % 2**31


def fingerprint(text: str) -> int:
    """Hash of a response without its white space and case; equal for what selection calls duplicates."""
    return _hash("".join(text.split()).casefold())


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "big")
