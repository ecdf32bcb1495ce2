"""Has the answers of an evaluation sampled and judged, and written down as they finish."""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import NamedTuple, Protocol, TypeAlias

from expert_iteration.collector import response_of
from expert_iteration.config import RunConfig
from expert_iteration.engine import Request
from expert_iteration.examination.predictions import Prediction, PredictionFile, Predictions
from expert_iteration.grading import Response
from expert_iteration.rounds import Round, rounds_of
from expert_iteration.sampling import GATHER, request
from expert_iteration.types import Prompt, Rollout, Verdict

BATCHES_AHEAD = 2
"""Full batches of the engine that are ordered at a time."""

Rollouts: TypeAlias = tuple[Rollout, ...]


class Sampler(Protocol):
    """`Engine`, as far as it is needed here."""

    def submit(self, requests: Sequence[Request]) -> list[Future[Rollouts]]: ...


class Judge(Protocol):
    """`Grader`, likewise."""

    def grade(self, responses: Sequence[Response]) -> list[Verdict]: ...


class Order(NamedTuple):
    """One answer that is wanted."""

    round: Round
    prompt: Prompt


def missing(config: RunConfig, prompts: Sequence[Prompt], known: Predictions) -> list[Order]:
    """What an evaluation asks and nobody has answered, question by question."""
    rounds = rounds_of(config)
    wanted = (Order(each, prompt) for prompt in prompts for each in rounds)
    return [order for order in wanted if (order.round, order.prompt.id) not in known]


def answer(
    config: RunConfig, orders: Sequence[Order], engine: Sampler, grader: Judge, file: PredictionFile
) -> Iterator[int]:
    """Ask, judge and write down.

    Yields:
        The number of answers that were added to `file`, each time some were.

    Raises:
        TimeoutError: the engine finished nothing for `wait_limit`.
    """
    ahead = BATCHES_AHEAD * config.placement.infer.max_num_seqs
    waiting: dict[Future[Rollouts], Order] = {}
    position = 0
    while waiting or position < len(orders):
        more = orders[position : position + ahead - len(waiting)]
        waiting |= zip(engine.submit([_request(config, order) for order in more]), more, strict=True)
        position += len(more)
        finished = _finished(config, waiting)
        file.append(_judged(finished, grader))
        yield len(finished)


def _request(config: RunConfig, order: Order) -> Request:
    """The same that an evaluation inside training makes."""
    (each, prompt) = order
    return request(config, prompt, prompt.token_ids, 1, each.temperature, each.engine_seed + prompt.id)


def _finished(config: RunConfig, waiting: dict[Future[Rollouts], Order]) -> list[tuple[Order, Rollout]]:
    """Those that finished together; waits for the first, and takes them out of `waiting`."""
    limit = config.wait_limit
    done, _ = wait(waiting, timeout=limit, return_when=FIRST_COMPLETED)
    if not done:
        raise TimeoutError(
            f"the engine finished none of {len(waiting)} answers in {limit:.0f} s (wait_limit); "
            "is it out of memory, or sampling.max_tokens too large?"
        )
    done |= wait(waiting, timeout=GATHER).done
    return [(waiting.pop(future), future.result()[0]) for future in list(waiting) if future in done]


def _judged(finished: Sequence[tuple[Order, Rollout]], grader: Judge) -> list[Prediction]:
    verdicts = grader.grade([response_of(order.prompt, rollout) for order, rollout in finished])
    return [
        Prediction.of(order.round, order.prompt, rollout, verdict)
        for (order, rollout), verdict in zip(finished, verdicts, strict=True)
    ]
