"""The sampler: vLLM in this process, generating on a thread of its own.

One thread owns vLLM: it builds it, adds requests, steps, loads weights and shuts it down, in the order in
which callers asked. So requests join the running batch between two steps, weights change between two
steps, and vLLM needs no lock.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import count
from threading import Event
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from expert_iteration.config import ModelConfig, PlacementConfig
from expert_iteration.types import Finish, Rollout
from expert_iteration.vllm_start import start_vllm
from expert_iteration.weights import Bucket, refuse_damaged

if TYPE_CHECKING:
    from vllm import CompletionOutput, RequestOutput, SamplingParams

P = ParamSpec("P")
T = TypeVar("T")
Rollouts: TypeAlias = tuple[Rollout, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """An order for `n` answers to one prompt."""

    prompt: tuple[int, ...]
    """Token ids."""
    n: int
    temperature: float
    """0: greedy, for which `n` is 1."""
    max_tokens: int
    min_tokens: int = 0
    """Response tokens before which neither end-of-sequence nor a stop string ends a response."""
    stop: tuple[str, ...] = ()
    """Strings that end a response; they stay in its text."""
    seed: int | None = None
    """Answer i draws from seed + i, whatever else is sampled meanwhile; null: from the engine's own seed."""


class Engine:
    """Samples groups of answers, takes new weights, and stamps each answer with their version.

    Any thread may call any method. Top-p and top-k are off. The log-probs are those of the distribution
    that was sampled from: after the temperature, and, for the first `min_tokens` tokens, with
    end-of-sequence masked out.
    """

    version: int
    """Policy version of the weights; 0 for those read from disk."""
    tokens_generated: int
    """Response tokens of all finished groups."""

    def __init__(
        self, model: ModelConfig, placement: PlacementConfig, seed: int, wait_limit: float = 600.0
    ) -> None:
        """Load the model. Takes seconds, most of them to import vLLM.

        Args:
            model: `path` is a folder or a hub id.
            seed: for requests that bring none of their own.
            wait_limit: seconds that a call may wait for the engine or for weights to arrive.

        Raises:
            ConfigError: vLLM refuses the model or its placement.
        """
        self.version = 0
        self.tokens_generated = 0
        self._max_length = model.max_length
        self._wait_limit = wait_limit
        self._groups: dict[str, Future[Rollouts]] = {}
        self._names = map(str, count())
        self._stepping = False
        self._arriving: int | None = None
        self._complete = Event()
        self._complete.set()
        self._failure: BaseException | None = None
        self._closed = False
        self._owner = ThreadPoolExecutor(1, thread_name_prefix="engine")
        try:
            self._vllm = self._do(self._start, model, placement, seed)
        except BaseException:
            self._owner.shutdown(wait=False)
            raise

    def submit(self, requests: Sequence[Request]) -> list[Future[Rollouts]]:
        """Start sampling. All requests are in the batch before its next token is generated.

        Returns:
            One future per request, which resolves when all answers of its group are finished.

        Raises:
            ValueError: a request cannot be served; none of them is.
            RuntimeError: new weights began to arrive and are still not complete after `wait_limit`.
        """
        for request in requests:
            self._check_room(request)
        if not self._complete.wait(self._wait_limit):
            raise RuntimeError(
                f"the weights of policy version {self._arriving} are not complete after "
                f"{self._wait_limit:g} s, and the engine does not sample from a mixture; push them again."
            )
        futures: list[Future[Rollouts]] = [Future() for _ in requests]
        self._do(self._add, requests, futures)
        return futures

    def generate(self, requests: Sequence[Request], limit: float | None = None) -> list[Rollouts]:
        """Sample and wait.

        Args:
            limit: seconds for all of it; null: as long as it takes.

        Raises:
            TimeoutError: not all groups were finished in time.
        """
        futures = self.submit(requests)
        late = wait(futures, limit).not_done
        if late:
            raise TimeoutError(f"the engine left {len(late)} of {len(futures)} groups undone in {limit} s.")
        return [future.result() for future in futures]

    def sample(self, requests: Sequence[Request]) -> dict[str, list[Rollouts]]:
        """The same by name of the engine, as for several engines; within its `wait_limit`."""
        return {"engine": self.generate(requests, self._wait_limit)}

    def start_update(self, version: int) -> None:
        """Stop sampling, and expect all weights of policy `version`."""
        self._do(self._start_update, version)

    def receive(self, bucket: Bucket) -> None:
        """Load some of the new weights.

        Raises:
            DamagedWeights: they are not those that were sent.
        """
        refuse_damaged(bucket)
        self._do(self._call_workers, "update_weights", update_info={"bucket": bucket})

    def finish_update(self) -> None:
        """Go on sampling, with the new weights.

        Raises:
            RuntimeError: no update was started, or weights are missing; the engine goes on waiting for them.
        """
        self._do(self._finish_update)

    def close(self) -> None:
        """Stop, and free the model. Unfinished groups raise. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._owner.submit(self._stop).result(self._wait_limit)
            self._owner.shutdown()

    def _check_room(self, request: Request) -> None:
        if len(request.prompt) + request.max_tokens > self._max_length:
            raise ValueError(
                f"a prompt of {len(request.prompt)} tokens leaves no room for max_tokens "
                f"({request.max_tokens}) in model.max_length ({self._max_length}); skip it or raise that."
            )

    def _do(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `job` on the thread that owns vLLM, after all that was asked for before it."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._owner.submit(job, *args, **kwargs).result(self._wait_limit)
        except TimeoutError as error:
            raise TimeoutError(f"the engine has not answered for {self._wait_limit:g} s.") from error

    # What follows runs on the owner thread.

    _start = staticmethod(start_vllm)

    def _add(self, requests: Sequence[Request], futures: Sequence[Future[Rollouts]]) -> None:
        from vllm.exceptions import VLLMClientError

        added: dict[str, Future[Rollouts]] = {}
        try:
            for request, future in zip(requests, futures, strict=True):
                name = next(self._names)
                prompt = {"prompt_token_ids": list(request.prompt)}
                self._vllm.add_request(name, prompt, sampling_params(request))
                future.set_running_or_notify_cancel()
                added[name] = future
        except VLLMClientError as error:
            self._vllm.abort_request(list(added))
            raise ValueError(f"vLLM refuses request {len(added)} of {len(requests)}: {error}") from error
        self._groups |= added
        self._wake()

    def _wake(self) -> None:
        """Have a step follow what callers have asked for by now, unless one will anyway."""
        if not self._stepping:
            self._stepping = True
            self._owner.submit(self._step)

    def _step(self) -> None:
        self._stepping = False
        if self._arriving is not None or not self._groups:
            return
        try:
            for output in self._vllm.step():
                self._finish_group(output)
        except BaseException as error:
            self._fail(error)
            raise
        self._wake()

    def _finish_group(self, output: "RequestOutput") -> None:
        rollouts = tuple(self._rollout(answer) for answer in output.outputs)
        self.tokens_generated += sum(len(rollout.token_ids) for rollout in rollouts)
        self._groups.pop(output.request_id).set_result(rollouts)

    def _rollout(self, answer: "CompletionOutput") -> Rollout:
        token_ids = tuple(answer.token_ids)
        # vLLM decodes only where it has to look for stop strings, for that costs an eighth of the speed
        text = answer.text or self._vllm.get_tokenizer().decode(token_ids, skip_special_tokens=True)
        return Rollout(
            index=answer.index,
            token_ids=token_ids,
            log_probs=tuple(answer.logprobs.logprobs),
            text=text,
            finish=Finish(answer.finish_reason),
            version_start=int(answer.weight_versions[0].version),
            version_end=int(answer.weight_versions[-1].version),
        )

    def _start_update(self, version: int) -> None:
        self._arriving = version
        self._complete.clear()
        self._call_workers("abandon_weight_update")
        self._call_workers("start_weight_update")

    def _finish_update(self) -> None:
        if self._arriving is None:
            raise RuntimeError("finish_update without start_update; no weights have arrived.")
        self._call_workers("finish_weight_update")
        # what is cached was computed with the old weights, also of the answers that are half done
        self._vllm.reset_prefix_cache(reset_running_requests=True)
        self._vllm.set_weight_version(str(self._arriving))
        self.version, self._arriving = self._arriving, None
        self._complete.set()
        self._wake()

    def _call_workers(self, method: str, **kwargs: Any) -> None:
        self._vllm.collective_rpc(method, kwargs=kwargs)

    def _fail(self, error: BaseException) -> None:
        """Hand `error` to everyone who waits, and to everyone who asks from now on."""
        self._failure = self._failure or error
        self._complete.set()
        groups, self._groups = self._groups, {}
        for future in groups.values():
            future.set_exception(error)

    def _stop(self) -> None:
        self._fail(RuntimeError("the engine is closed."))
        self._vllm.engine_core.shutdown()
        del self._vllm


def sampling_params(request: Request) -> "SamplingParams":
    """A request in the words of vLLM: complete answers only, each with the log-probs of its tokens."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=request.n,
        temperature=request.temperature,
        max_tokens=request.max_tokens,
        min_tokens=request.min_tokens,
        stop=list(request.stop),
        include_stop_str_in_output=True,
        detokenize=bool(request.stop),
        seed=request.seed,
        logprobs=0,
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
