"""The sampler: vLLM, in this process or its core in one of its own, driven by a thread of its own.

One thread owns vLLM: it builds it, adds requests, steps, loads weights and shuts it down, in the order in
which callers asked. So requests join the running batch between two steps, weights change between two
steps, and vLLM needs no lock.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import count
from threading import Event
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from expert_iteration.choices import EngineKind, PushPause
from expert_iteration.config import HOST_PUSH, ModelConfig, PlacementConfig, PushConfig
from expert_iteration.request import Request, Rollouts, rollout_of, sampling_params
from expert_iteration.standstill import Order, Standstill
from expert_iteration.types import Interruption
from expert_iteration.vllm_start import start_vllm
from expert_iteration.weights import Bucket, Parcel, refuse_damaged

if TYPE_CHECKING:
    from vllm import RequestOutput

P = ParamSpec("P")
T = TypeVar("T")


class Engine:
    """Samples groups of answers, takes new weights, and stamps each answer with their version.

    Any thread may call any method. Top-p and top-k are off. The log-probs are those of what was sampled
    from: after the temperature, and, for the first `min_tokens` tokens, with end-of-sequence masked out.
    """

    version: int
    """Policy version of the weights; 0 for those read from disk."""
    tokens_generated: int
    """Response tokens of all finished groups."""
    unfinished: int
    """Answers that it works on, or has before it."""
    meeting: str | None
    """Where it was connected with the trainer, by a backend that connects them."""

    def __init__(
        self,
        model: ModelConfig,
        placement: PlacementConfig,
        seed: int,
        wait_limit: float = 600.0,
        push: PushConfig = HOST_PUSH,
    ) -> None:
        """Load the model. Takes seconds, most of them to import vLLM.

        Args:
            model: `path` is a folder or a hub id.
            seed: for requests that bring none of their own.
            wait_limit: seconds that a call may wait for the engine or for weights to arrive.
            push: how weights come, and what becomes of the answers that are under way then.

        Raises:
            ConfigError: vLLM refuses the model or its placement.
        """
        self.version = 0
        self.tokens_generated = self.unfinished = 0
        self.meeting = None
        self._max_length = model.max_length
        self._wait_limit = wait_limit
        self._pause = push.pause
        self._apart = placement.infer.engine is EngineKind.own_process
        self._orders: dict[str, Order] = {}
        self._standstill = Standstill()
        self._sleep_level = placement.infer.sleep_level
        self._asleep = False
        self._names = map(str, count())
        self._stepping = False
        self._arriving: int | None = None
        self._complete = Event()
        self._complete.set()
        self._failure: BaseException | None = None
        self._closed = False
        self._owner = ThreadPoolExecutor(1, thread_name_prefix="engine")
        try:
            self._vllm = self._do(self._start, model, placement, seed, push)
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
        orders = [Order(request, Future()) for request in requests]
        while not self._do(self._add, orders):
            if not self._complete.wait(self._wait_limit):
                raise RuntimeError(
                    f"the weights of policy version {self._arriving} are not complete after "
                    f"{self._wait_limit:g} s, and the engine does not sample from a mixture; push them again."
                )
        return [order.answers for order in orders]

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

    def connect(self, meeting: str, init_info: dict[str, Any]) -> None:
        """Join a push group, which meets at `meeting`; vLLM is told `init_info`."""
        self._do(self._call_workers, "init_weight_transfer_engine", init_info=init_info)
        self.meeting = meeting

    def rest(self) -> None:
        """Give up memory until the next push, as placement.infer.sleep_level says. Nothing is under way."""
        if self._sleep_level:
            self._do(self._sleep)

    def start_update(self, version: int) -> None:
        """Stop sampling, when push.pause says so, and expect all weights of policy `version`."""
        self._do(self._start_update, version)

    def receive(self, parcel: Parcel) -> None:
        """Load some of the new weights.

        Raises:
            DamagedWeights: they are not those that were sent.
        """
        if isinstance(parcel, Bucket):
            refuse_damaged(parcel)
        self._do(self._call_workers, "update_weights", update_info=parcel.update_info(self._apart))

    def finish_update(self) -> Interruption:
        """Go on sampling, with the new weights.

        Raises:
            RuntimeError: no update was started, or weights are missing; the engine goes on waiting for them.
        """
        return self._do(self._finish_update)

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

    def _add(self, orders: Sequence[Order]) -> bool:
        """Give vLLM all of `orders`, or none of them while weights arrive; whether it was done."""
        if self._arriving is not None:
            self._standstill.note_work()
            return False
        assert not self._asleep, "the engine sleeps until the next push"
        from vllm.exceptions import VLLMClientError

        added: dict[str, Order] = {}
        try:
            for order in orders:
                added[self._enter(order)] = order
        except VLLMClientError as error:
            self._vllm.abort_request(list(added))
            raise ValueError(f"vLLM refuses request {len(added)} of {len(orders)}: {error}") from error
        for order in orders:
            order.answers.set_running_or_notify_cancel()
        self._orders |= added
        self.unfinished = self._vllm.get_num_unfinished_requests()
        self._wake()
        return True

    def _enter(self, order: Order) -> str:
        """Give vLLM one order; returns the name it has there."""
        name = next(self._names)
        prompt = {"prompt_token_ids": list(order.request.prompt)}
        self._vllm.add_request(name, prompt, sampling_params(order.request))
        return name

    def _wake(self) -> None:
        """Have a step follow what callers have asked for by now, unless one will anyway."""
        if not self._stepping:
            self._stepping = True
            self._owner.submit(self._step)

    def _step(self) -> None:
        self._stepping = False
        if self._arriving is None and self._orders:
            self._advance()
            self._wake()

    def _advance(self) -> None:
        """Generate a token of each answer, and hand out the groups that are finished by it."""
        try:
            for output in self._vllm.step():
                self._finish_group(output)
            self.unfinished = self._vllm.get_num_unfinished_requests()
        except BaseException as error:
            self._fail(error)
            raise

    def _finish_group(self, output: "RequestOutput") -> None:
        tokenizer = self._vllm.get_tokenizer()
        rollouts = tuple(rollout_of(answer, tokenizer) for answer in output.outputs)
        self.tokens_generated += sum(len(rollout.token_ids) for rollout in rollouts)
        self._orders.pop(output.request_id).answers.set_result(rollouts)

    def _sleep(self) -> None:
        assert not self._orders, "the engine is asked to sleep while it has work"
        if not self._asleep:
            self._vllm.sleep(self._sleep_level)
            self._asleep = True

    def _start_update(self, version: int) -> None:
        self._arriving = version
        self._complete.clear()
        self._halt()
        self._call_workers("abandon_weight_update")
        self._call_workers("start_weight_update")

    def _halt(self) -> None:
        """Generate nothing more, once what is under way has become what push.pause says."""
        while self._orders and self._pause is PushPause.wait:
            self._advance()
        if self._orders:
            self._standstill.note_work()
        if self._pause is PushPause.abort:
            self._vllm.abort_request(list(self._orders))
            self._standstill.given_up += self._orders.values()
            self._orders = {}
        if self._asleep:
            self._vllm.wake_up(["weights"])
        # level 0 frees nothing: a core in a process of its own would go on by itself
        self._vllm.sleep(0, "keep")

    def _finish_update(self) -> Interruption:
        if self._arriving is None:
            raise RuntimeError("finish_update without start_update; no weights have arrived.")
        self._call_workers("finish_weight_update")
        if self._asleep:
            self._vllm.wake_up(["kv_cache"])
            self._asleep = False
        # what is cached was computed with the old weights, also of the answers that are half done
        self._vllm.reset_prefix_cache(reset_running_requests=True)
        self._vllm.set_weight_version(str(self._arriving))
        self._vllm.wake_up(["scheduling"])
        self.version, self._arriving = self._arriving, None
        given_up, interruption = self._standstill.end(self._orders.values())
        self._orders |= {self._enter(order): order for order in given_up}
        self._complete.set()
        self._wake()
        return interruption

    def _call_workers(self, method: str, **kwargs: Any) -> None:
        self._vllm.collective_rpc(method, kwargs=kwargs)

    def _fail(self, error: BaseException) -> None:
        """Hand `error` to everyone who waits, and to everyone who asks from now on."""
        self._failure = self._failure or error
        self._complete.set()
        orders = [*self._orders.values(), *self._standstill.given_up]
        self._orders, self._standstill = {}, Standstill()
        for order in orders:
            order.answers.set_exception(error)

    def _stop(self) -> None:
        try:
            if self._failure is None:
                self._call_workers("forget_layers")
        finally:
            self._fail(RuntimeError("the engine is closed."))
            self._vllm.engine_core.shutdown()
            del self._vllm
