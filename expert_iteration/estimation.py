"""First stage of A*-PO: what answers of the reference model earn on each training prompt.

A*-PO (arXiv 2505.20686) samples them before training; values.py turns them into V*.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from random import Random
from typing import Protocol, TypeAlias

from expert_iteration.collector import response_of
from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.engine import Request
from expert_iteration.grading import Response, shaped
from expert_iteration.sampling import request
from expert_iteration.types import Prompt, Rollout, Verdict
from expert_iteration.values import Samples, path_of

BATCHES_PER_CHUNK = 2
"""Full batches of the engine that one chunk of prompts makes; the file is written after each chunk."""

Rollouts: TypeAlias = tuple[Rollout, ...]


class Sampler(Protocol):
    """`Engine`, as far as it is needed here."""

    def submit(self, requests: Sequence[Request]) -> list[Future[Rollouts]]: ...


class Judge(Protocol):
    """`Grader`, likewise."""

    def grade(self, responses: Sequence[Response]) -> list[Verdict]: ...


def estimate(
    config: RunConfig, samples: Samples, prompts: Sequence[Prompt], engine: Sampler, grader: Judge
) -> Iterator[int]:
    """Ask, judge and write down `prompts`, chunk by chunk.

    Yields:
        The number of prompts in each chunk, once values.path holds it.

    Raises:
        ConfigError: several samples are asked for at temperature 0.
        TimeoutError: the engine did not finish a group in `wait_limit`.
    """
    if config.sampling.temperature == 0 and config.values.samples > 1:
        raise ConfigError(
            f"values.samples ({config.values.samples}) are one and the same at sampling.temperature 0; "
            "raise that, or use values.samples=1."
        )
    file = path_of(config)
    for chunk, answers in _answered(config, prompts, engine):
        _book(config, samples, chunk, answers, grader)
        samples.write(file)
        yield len(chunk)


def chunk_size(config: RunConfig) -> int:
    """Prompts in a chunk."""
    return max(1, BATCHES_PER_CHUNK * config.placement.infer.max_num_seqs // config.values.samples)


def value_seed(seed: int, prompt_id: int) -> int:
    """Of the answers to a prompt: a function of (run seed, prompt), in [0, 2^31)."""
    return Random(f"values/{seed}/{prompt_id}").getrandbits(31)


def _answered(
    config: RunConfig, prompts: Sequence[Prompt], engine: Sampler
) -> Iterator[tuple[Sequence[Prompt], list[Rollouts]]]:
    """Each chunk with its answers; the engine works on the next one meanwhile."""
    waiting: deque[tuple[Sequence[Prompt], list[Future[Rollouts]]]] = deque()
    size = chunk_size(config)
    for start in range(0, len(prompts), size):
        chunk = prompts[start : start + size]
        waiting.append((chunk, engine.submit([_order(config, prompt) for prompt in chunk])))
        if len(waiting) > 1:
            yield _finished(config, *waiting.popleft())
    while waiting:
        yield _finished(config, *waiting.popleft())


def _order(config: RunConfig, prompt: Prompt) -> Request:
    seed = value_seed(config.seed, prompt.id)
    return request(config, prompt, prompt.token_ids, config.values.samples, config.sampling.temperature, seed)


def _finished(
    config: RunConfig, chunk: Sequence[Prompt], futures: Sequence[Future[Rollouts]]
) -> tuple[Sequence[Prompt], list[Rollouts]]:
    try:
        return chunk, [future.result(config.wait_limit) for future in futures]
    except TimeoutError as error:
        raise TimeoutError(
            f"the engine finished no group in {config.wait_limit:.0f} s (wait_limit); is it out of memory, "
            "or sampling.max_tokens too large?"
        ) from error


def _book(
    config: RunConfig, samples: Samples, chunk: Sequence[Prompt], answers: Sequence[Rollouts], grader: Judge
) -> None:
    """Judge the answers to a chunk of prompts; rewards are those that training gives."""
    asked = [
        (prompt, rollout) for prompt, rollouts in zip(chunk, answers, strict=True) for rollout in rollouts
    ]
    verdicts = grader.grade([response_of(prompt, rollout) for prompt, rollout in asked])
    samples.rewards |= {prompt.id: [] for prompt in chunk}
    for (prompt, rollout), verdict in zip(asked, verdicts, strict=True):
        if verdict.abstains:
            continue
        reward = shaped(config.reward, verdict, rollout.token_ids, config.sampling.max_tokens)
        samples.rewards[prompt.id].append(reward)
        if verdict.success:
            samples.solved.add(prompt.id)
