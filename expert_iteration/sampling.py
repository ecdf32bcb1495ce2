"""Asks the engine, and hands out answers as they finish."""

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

from expert_iteration.algorithms import answers_at_once
from expert_iteration.config import RunConfig
from expert_iteration.engine import Engine, Request
from expert_iteration.types import Finish, Group, Prompt, Rollout, Ticket

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

GATHER = 0.1
"""Seconds for which finished groups wait for company, so that one call to the buffer carries many."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One order to the engine: answers to a prompt, further ones, or second answers to it with a hint."""

    ticket: Ticket
    before: Group | None = None
    """The answers that it has."""
    hinted: bool = False


Answered: TypeAlias = tuple[Ask, tuple[Rollout, ...]]


class Answers:
    """Orders that are under way; more may be added while some finish."""

    def __init__(self, config: RunConfig, engine: Engine) -> None:
        self._config = config
        self._engine = engine
        self._waiting: dict[Future[tuple[Rollout, ...]], Ask] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, asks: Sequence[Ask]) -> None:
        requests = [rollout_request(self._config, ask) for ask in asks]
        self._waiting |= zip(self._engine.submit(requests), asks, strict=True)

    def take(self) -> list[Answered]:
        """Those that finished together, in the order of their groups; waits for the first.

        Raises:
            TimeoutError: none did within `wait_limit`.
        """
        limit = self._config.wait_limit
        done, _ = wait(self._waiting, timeout=limit, return_when=FIRST_COMPLETED)
        if not done:
            raise TimeoutError(
                f"the engine finished none of {len(self._waiting)} groups in {limit:.0f} s "
                "(wait_limit); is it out of memory, or max_tokens too large?"
            )
        done |= wait(self._waiting, timeout=GATHER).done
        bundle = [(self._waiting.pop(future), future.result()) for future in done]
        return sorted(bundle, key=lambda answered: answered[0].ticket.group_id)


def rollout_request(config: RunConfig, ask: Ask) -> Request:
    """The request for the training answers of `ask`."""
    prompt, seed, answers = ask.ticket.prompt, visit_seed(config.seed, ask), config.rollouts_per_prompt
    temperature = ask.ticket.temperature or config.sampling.temperature
    if ask.hinted:
        assert prompt.hinted_token_ids is not None, "prompts have no hint"
        return request(config, prompt, prompt.hinted_token_ids, answers, temperature, seed)
    # so that an answer is the same, in whatever portion it is sampled
    first = len(ask.before.rollouts) if ask.before else 0
    count = min(answers_at_once(config), answers - first)
    return request(config, prompt, prompt.token_ids, count, temperature, seed + first)


def request(
    config: RunConfig, prompt: Prompt, tokens: tuple[int, ...], n: int, temperature: float, seed: int
) -> Request:
    """`n` answers to `tokens`, which is `prompt` or a variant of it."""
    return Request(
        prompt=tokens,
        n=n,
        temperature=temperature,
        max_tokens=config.sampling.max_tokens,
        min_tokens=config.sampling.min_tokens,
        stop=prompt.stop,
        seed=seed,
    )


def demonstration(
    config: RunConfig, tokenizer: "PreTrainedTokenizerFast", prompt: Prompt, version: int
) -> Rollout:
    """The dataset's own worked response, as if the policy had said it."""
    text = prompt.demonstration or ""
    eos = tokenizer.eos_token_id
    token_ids = (*tokenizer.encode(text, add_special_tokens=False), eos)
    token_ids = token_ids[: config.model.max_length - len(prompt.token_ids)]
    finish = Finish.STOP if token_ids[-1] == eos else Finish.LENGTH
    return Rollout(0, token_ids, (0.0,) * len(token_ids), text, finish, version, version)


def visit_seed(seed: int, ask: Ask) -> int:
    """Seed of one order: a function of (run seed, iteration, prompt, hinted or not), in [0, 2^31)."""
    hinted = "/hinted" if ask.hinted else ""
    text = f"{seed}/{ask.ticket.iteration}/{ask.ticket.prompt.id}{hinted}"
    return int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "big") % 2**31
