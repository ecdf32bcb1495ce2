"""The engine on CPU: real vLLM on a tiny model, and a stand-in for vLLM where it has to misbehave."""

import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path
from threading import Semaphore, Thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from expert_iteration.choices import Dtype, EngineKind, PushPause
from expert_iteration.config import ConfigError, InferPlacement, ModelConfig, PlacementConfig, PushConfig
from expert_iteration.engine import Engine, Request
from expert_iteration.export.folder import export
from expert_iteration.types import Finish, Interruption, Rollout
from expert_iteration.weights import HostTransport, pack, push
from tests.runs import wait_until
from tests.sealed import sealed

pytestmark = pytest.mark.real

EXACT = HostTransport(torch.float32)
MAX_LENGTH = 512
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
PROMPTS = [*(tuple(range(3 + i, 20 + 2 * i)) for i in range(7)), tuple(range(3, 253))]
"""The last one fills a block of the prefix cache."""


def model_config(path: str) -> ModelConfig:
    return ModelConfig(path=path, max_length=MAX_LENGTH, learning_rate=1e-3, engine_dtype=Dtype.float32)


def request(prompt: tuple[int, ...] = PROMPTS[0], **changes: Any) -> Request:
    return Request(prompt, **({"n": 1, "temperature": 1.0, "max_tokens": 16, "seed": 0} | changes))


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with heads as large as vLLM's CPU attention wants them, exported from a checkpoint."""
    torch.manual_seed(0)
    config = Qwen2Config.from_pretrained(tiny_model, num_attention_heads=2, num_key_value_heads=1)
    path = tmp_path_factory.mktemp("model")
    Qwen2ForCausalLM(config).save_pretrained(path)
    PreTrainedTokenizerFast.from_pretrained(tiny_model).save_pretrained(path)
    run = tmp_path_factory.mktemp("run")
    export(sealed(run, path), run / "exported")
    return run / "exported"


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VLLM_NO_USAGE_STATS", "0")
        environment.delenv("DO_NOT_TRACK", raising=False)
        engine = Engine(model_config(str(folder)), PlacementConfig(), seed=0)
        yield engine
        engine.close()
        engine.close()


@pytest.mark.usefixtures("engine")
def test_the_makers_of_vllm_are_told_nothing_whatever_the_environment_says() -> None:
    from vllm.usage.usage_lib import is_usage_stats_enabled

    assert not is_usage_stats_enabled()


@pytest.fixture(scope="module")
def trained(folder: Path) -> Qwen2ForCausalLM:
    """The model whose weights the engine has, from one test to the next."""
    return Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def train_a_little(model: Qwen2ForCausalLM) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))


def push_to(engine: Engine, model: Qwen2ForCausalLM) -> None:
    push(model.state_dict().items(), [engine], engine.version + 1, EXACT)


@torch.no_grad()
def greedy(model: Qwen2ForCausalLM, prompt: tuple[int, ...], length: int) -> tuple[int, ...]:
    tokens = list(prompt)
    while len(tokens) < len(prompt) + length and model.config.eos_token_id not in tokens[len(prompt) :]:
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tuple(tokens[len(prompt) :])


@torch.no_grad()
def response_logits(
    model: Qwen2ForCausalLM, prompt: tuple[int, ...], response: tuple[int, ...]
) -> torch.Tensor:
    """[response tokens, vocabulary]: what each response token was sampled from."""
    return model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]


def assert_log_probs(rollout: Rollout, logits: torch.Tensor) -> None:
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(rollout.token_ids)[:, None])[:, 0]
    assert torch.allclose(torch.tensor(rollout.log_probs), expected, rtol=0, atol=1e-5)


def assert_agreement(engine: Engine, model: Qwen2ForCausalLM) -> None:
    groups = engine.generate([request(prompt, temperature=0) for prompt in PROMPTS])
    for prompt, (rollout,) in zip(PROMPTS, groups, strict=True):
        assert rollout.token_ids == greedy(model, prompt, 16)
        assert (rollout.version_start, rollout.version_end) == (engine.version, engine.version)


def test_greedy_tokens_are_those_of_the_trained_model_before_and_after_every_push(
    engine: Engine, trained: Qwen2ForCausalLM
) -> None:
    assert engine.version == 0
    assert_agreement(engine, trained)
    for version in (1, 2):
        train_a_little(trained)
        push_to(engine, trained)
        assert engine.version == version
        assert_agreement(engine, trained)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_log_probs_are_those_of_the_tempered_distribution(
    engine: Engine, trained: Qwen2ForCausalLM, temperature: float
) -> None:
    (group,) = engine.generate([request(n=4, temperature=temperature)])
    for rollout in group:
        logits = response_logits(trained, PROMPTS[0], rollout.token_ids)
        assert_log_probs(rollout, logits / temperature)


def test_log_probs_leave_out_an_end_that_min_tokens_forbids(
    engine: Engine, trained: Qwen2ForCausalLM
) -> None:
    ((rollout,),) = engine.generate([request(min_tokens=16)])
    logits = response_logits(trained, PROMPTS[0], rollout.token_ids)
    logits[:, trained.config.eos_token_id] = -torch.inf
    assert_log_probs(rollout, logits)


def test_a_group_holds_n_different_answers_in_order(engine: Engine) -> None:
    (group,) = engine.generate([request(n=8)])
    assert [rollout.index for rollout in group] == list(range(8))
    assert len({rollout.token_ids for rollout in group}) == 8


def test_an_answer_ends_with_its_end_token_or_at_max_tokens(
    engine: Engine, trained: Qwen2ForCausalLM
) -> None:
    (group,) = engine.generate([request(n=64, max_tokens=64)])
    end = trained.config.eos_token_id
    assert {rollout.finish for rollout in group} == {Finish.STOP, Finish.LENGTH}
    for rollout in group:
        assert len(rollout.token_ids) == len(rollout.log_probs)
        if rollout.finish is Finish.STOP:
            assert rollout.token_ids.index(end) == len(rollout.token_ids) - 1
            assert "<|im_end|>" not in rollout.text
        else:
            assert len(rollout.token_ids) == 64
            assert end not in rollout.token_ids


def test_a_stop_string_ends_the_text_and_stays_in_it(engine: Engine) -> None:
    (group,) = engine.generate([request(n=32, max_tokens=200, stop=LETTERS)])
    stopped = [rollout for rollout in group if rollout.text.endswith(LETTERS)]
    assert len(stopped) > 16
    for rollout in stopped:
        assert rollout.finish is Finish.STOP
        assert not any(letter in rollout.text[:-1] for letter in LETTERS)


def test_nothing_ends_an_answer_before_min_tokens(engine: Engine) -> None:
    free, bound = engine.generate([request(n=32, stop=LETTERS, min_tokens=least) for least in (0, 10)])
    assert min(len(rollout.token_ids) for rollout in free) < 10
    assert min(len(rollout.token_ids) for rollout in bound) >= 10


@pytest.mark.parametrize("stop", [(), ("never sampled",)])
def test_text_is_what_the_tokenizer_file_says(engine: Engine, folder: Path, stop: tuple[str, ...]) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    space, newline, tab = tokenizer.encode(" \n\t", add_special_tokens=False)
    (group,) = engine.generate([request(n=256, max_tokens=64, stop=stop)])
    assert {space, newline, tab} <= {token for rollout in group for token in rollout.token_ids}
    for rollout in group:
        decoded = tokenizer.decode(rollout.token_ids, skip_special_tokens=True)
        # a character that is cut off at the end is shown by one decoder and held back by the other
        assert rollout.text.rstrip("�") == decoded.rstrip("�")


def test_seeded_answers_do_not_depend_on_what_else_is_sampled(engine: Engine) -> None:
    requests = [request(prompt, n=4, seed=100 * i) for i, prompt in enumerate(PROMPTS)]
    first = engine.generate(requests)
    assert engine.generate(requests) == first
    assert engine.generate(requests[::-1]) == first[::-1]
    assert engine.generate([requests[3]]) == [first[3]]
    assert engine.generate([request(n=4, seed=7), requests[3]])[1] == first[3]


def test_seeds_survive_prompts_that_fill_several_batches(engine: Engine) -> None:
    requests = [request(tuple(range(3, 250)), n=16, max_tokens=4, seed=100 * i) for i in range(8)]
    assert engine.generate(requests) == engine.generate(requests)


def test_answers_without_a_seed_differ_from_call_to_call(engine: Engine) -> None:
    assert engine.generate([request(seed=None)]) != engine.generate([request(seed=None)])


def test_groups_resolve_one_by_one(engine: Engine) -> None:
    long, short = engine.submit([request(max_tokens=400, min_tokens=400), request(max_tokens=1)])
    assert wait([long, short], return_when=FIRST_COMPLETED).done == {short}
    assert len(long.result()[0].token_ids) == 400


def test_tokens_of_finished_groups_are_counted(engine: Engine) -> None:
    before = engine.tokens_generated
    groups = engine.generate([request(n=3), request(n=2)])
    sampled = sum(len(rollout.token_ids) for group in groups for rollout in group)
    assert engine.tokens_generated == before + sampled


def test_a_prompt_without_room_for_its_answer_is_refused(engine: Engine) -> None:
    fits = tuple([5] * (MAX_LENGTH - 16))
    assert engine.generate([request(fits)])
    with pytest.raises(ValueError, match=r"497 tokens .* max_tokens \(16\) .* model.max_length \(512\)"):
        engine.submit([request(), request((*fits, 5))])


@pytest.mark.parametrize(
    ("bad", "wrong"),
    [
        (request((5, 100_000)), "out of vocabulary"),
        (request(()), "empty"),
        (request(n=2, temperature=0), "greedy"),
        (request(temperature=-1.0), "temperature"),
    ],
)
def test_a_refused_request_takes_the_others_of_its_call_along_and_no_more(
    engine: Engine, bad: Request, wrong: str
) -> None:
    before = engine.tokens_generated
    with pytest.raises(ValueError, match=wrong):
        engine.submit([request(), bad])
    assert engine.generate([request(max_tokens=1)])
    assert engine.tokens_generated == before + 1


def test_an_answer_that_a_push_interrupts_carries_both_versions(
    engine: Engine, trained: Qwen2ForCausalLM
) -> None:
    before = engine.version
    (future,) = engine.submit([request(n=2, max_tokens=400, min_tokens=400)])
    train_a_little(trained)
    push_to(engine, trained)
    for rollout in future.result():
        assert (rollout.version_start, rollout.version_end) == (before, before + 1)
        assert [version for version, _ in rollout.versions] == [before, before + 1]
        assert sum(tokens for _, tokens in rollout.versions) == len(rollout.token_ids) == 400


def test_after_a_push_an_answer_goes_on_with_the_new_weights_alone(
    engine: Engine, trained: Qwen2ForCausalLM
) -> None:
    (future,) = engine.submit([request(max_tokens=400, min_tokens=400)])
    train_a_little(trained)
    push_to(engine, trained)
    (rollout,) = future.result()
    logits = response_logits(trained, PROMPTS[0], rollout.token_ids)
    logits[:, trained.config.eos_token_id] = -torch.inf
    expected = logits.log_softmax(-1)[-1, rollout.token_ids[-1]].item()
    assert rollout.log_probs[-1] == pytest.approx(expected, abs=1e-5)


def test_nothing_is_sampled_while_weights_arrive(engine: Engine, trained: Qwen2ForCausalLM) -> None:
    (future,) = engine.submit([request(max_tokens=300, min_tokens=300)])
    engine.start_update(engine.version + 1)
    assert wait([future], timeout=1.0).not_done
    for bucket in pack(trained.state_dict().items(), torch.float32):
        engine.receive(bucket)
    assert not future.done()
    engine.finish_update()
    assert len(future.result()[0].token_ids) == 300


def test_a_complete_push_makes_up_for_an_interrupted_one(engine: Engine, trained: Qwen2ForCausalLM) -> None:
    buckets = list(pack(trained.state_dict().items(), torch.float32, bucket_bytes=10_000))
    engine.start_update(engine.version + 1)
    for bucket in buckets[: len(buckets) // 2]:
        engine.receive(bucket)
    train_a_little(trained)
    push_to(engine, trained)
    assert_agreement(engine, trained)


@pytest.mark.parametrize(
    "lost", ["embed_tokens", "layers.0.self_attn.k_proj", "layers.1.mlp.up_proj", "norm"]
)
def test_a_push_that_lost_something_cannot_finish(
    engine: Engine, trained: Qwen2ForCausalLM, lost: str
) -> None:
    version = engine.version
    rest = [(name, tensor) for name, tensor in trained.named_parameters() if lost not in name]
    with pytest.raises(RuntimeError, match="have not arrived"):
        push(rest, [engine], version + 1, EXACT)
    assert engine.version == version
    push_to(engine, trained)
    assert_agreement(engine, trained)


def test_a_tensor_of_the_wrong_shape_can_be_pushed_over(engine: Engine, trained: Qwen2ForCausalLM) -> None:
    wrong = [(name, torch.zeros(3, 3)) for name, _ in trained.named_parameters()]
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        push(wrong, [engine], engine.version + 1, EXACT)
    push_to(engine, trained)
    assert_agreement(engine, trained)


def processes_below(pid: int) -> set[int]:
    """What a process has started, and what that has; but for Python's tracker, which stays until it ends."""
    found = set()
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                found |= {child, *processes_below(child)}
    return found


@pytest.mark.long
def test_both_kinds_of_engine_give_the_same_greedy_tokens_after_a_push(
    engine: Engine, trained: Qwen2ForCausalLM, folder: Path
) -> None:
    before = processes_below(os.getpid())
    placement = PlacementConfig(infer=InferPlacement(engine=EngineKind.own_process))
    other = Engine(model_config(str(folder)), placement, seed=0)
    try:
        train_a_little(trained)
        push(trained.state_dict().items(), [engine, other], engine.version + 1, EXACT)
        requests = [request(prompt, temperature=0) for prompt in PROMPTS]
        assert other.generate(requests) == engine.generate(requests)
        seeded = [request(prompt, n=4, seed=100 * i) for i, prompt in enumerate(PROMPTS)]
        assert other.generate(seeded) == engine.generate(seeded)
        version = engine.version
        (future,) = other.submit([request(n=2, max_tokens=400, min_tokens=400)])
        train_a_little(trained)
        push(trained.state_dict().items(), [engine, other], version + 1, EXACT)
        for rollout in future.result():
            assert [stamp for stamp, _ in rollout.versions] == [version, version + 1]
        assert other.generate(requests) == engine.generate(requests)
    finally:
        other.close()
    assert wait_until(lambda: processes_below(os.getpid()) <= before, seconds=20)


def test_finish_without_start_is_refused(engine: Engine) -> None:
    with pytest.raises(RuntimeError, match="without start_update"):
        engine.finish_update()


def test_a_cache_too_small_for_one_answer_is_refused_by_name(folder: Path) -> None:
    placement = PlacementConfig()
    placement.infer.kv_cache_mib = 0
    with pytest.raises(ConfigError, match=r"placement.infer.kv_cache_mib 0"):
        Engine(model_config(str(folder)), placement, seed=0)


class StandIn:
    """Just enough of vLLM's engine to finish one request per step, in order, or none, or to break."""

    def __init__(self, breaks: bool = False, stuck: bool = False) -> None:
        self.breaks = breaks
        self.stuck = stuck
        self.calls: list[str] = []
        self.waiting: list[str] = []
        self.engine_core = SimpleNamespace(shutdown=lambda: self.calls.append("shutdown"))

    def add_request(self, name: str, *_: Any) -> None:
        self.calls.append("add")
        self.waiting.append(name)

    def step(self) -> list[Any]:
        if self.breaks:
            raise MemoryError("out of blocks")
        if self.stuck:
            return []
        self.calls.append("step")
        answer = SimpleNamespace(
            index=0,
            token_ids=[1],
            logprobs=SimpleNamespace(logprobs=[0.0]),
            text="x",
            finish_reason="length",
            weight_versions=[SimpleNamespace(version="0", start=0, end=1)],
        )
        return [SimpleNamespace(request_id=self.waiting.pop(0), outputs=[answer])]

    def collective_rpc(self, method: str, **_: Any) -> None:
        self.calls.append(method)

    def reset_prefix_cache(self, **_: Any) -> None:
        self.calls.append("reset_prefix_cache")

    def set_weight_version(self, _: str) -> None: ...

    def get_tokenizer(self) -> None: ...

    def get_num_unfinished_requests(self) -> int:
        return len(self.waiting)

    def sleep(self, level: int, *_: str) -> None:
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(f"wake {tags[0]}")

    def abort_request(self, names: list[str]) -> None:
        self.calls.append("abort")
        self.waiting = [name for name in self.waiting if name not in names]


def engine_around(
    vllm: StandIn, wait_limit: float = 60.0, pause: PushPause = PushPause.keep, sleep_level: int = 0
) -> Engine:
    class EngineAroundStandIn(Engine):
        _start = staticmethod(lambda *_: vllm)  # type: ignore[assignment]

    placement = PlacementConfig(infer=InferPlacement(sleep_level=sleep_level))
    return EngineAroundStandIn(model_config("nowhere"), placement, 0, wait_limit, PushConfig(pause=pause))


@pytest.fixture
def prompt_requests() -> list[Request]:
    return [request(prompt) for prompt in PROMPTS]


def test_all_requests_of_a_call_are_added_before_the_next_step(prompt_requests: list[Request]) -> None:
    vllm = StandIn()
    engine_around(vllm).generate(prompt_requests)
    assert vllm.calls == ["add"] * 8 + ["step"] * 8


def test_the_prefix_cache_is_reset_by_every_push() -> None:
    vllm = StandIn()
    push([], [engine_around(vllm)], 1, EXACT)
    assert vllm.calls[-3:] == ["finish_weight_update", "reset_prefix_cache", "wake scheduling"]


UPDATE = ["sleep 0", "abandon_weight_update", "start_weight_update", "finish_weight_update"]
RESUME = ["reset_prefix_cache", "wake scheduling"]


class Slow(StandIn):
    """Finishes a request whenever it is let to; until then its steps bring nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.let = Semaphore(0)

    def step(self) -> list[Any]:
        return super().step() if self.let.acquire(timeout=0.001) else []


def test_a_push_that_waits_lets_running_answers_finish_and_starts_no_new_ones() -> None:
    vllm = Slow()
    engine = engine_around(vllm, pause=PushPause.wait)
    running = engine.submit([request(), request()])
    pushing = Thread(target=lambda: effects.append(push([], [engine], 1, EXACT).interruption))
    effects: list[Interruption] = []
    pushing.start()
    late: list[Any] = []
    submitter = Thread(target=lambda: late.extend(engine.submit([request()])))
    submitter.start()
    pushing.join(timeout=0.2)
    assert pushing.is_alive() and "sleep 0" not in vllm.calls
    vllm.let.release(3)
    for thread in (pushing, submitter):
        thread.join()
    wait([*running, *late])
    assert vllm.calls == ["add"] * 2 + ["step"] * 2 + UPDATE + RESUME + ["add", "step"]
    assert (effects[0].aborted, effects[0].resumed) == (0, 0)


def test_a_push_that_aborts_orders_every_cut_off_answer_again() -> None:
    vllm = Slow()
    engine = engine_around(vllm, pause=PushPause.abort)
    futures = engine.submit([request(n=3), request(n=4)])
    effect = push([], [engine], 1, EXACT).interruption
    vllm.let.release(2)
    wait(futures)
    assert vllm.calls == ["add"] * 2 + ["abort"] + UPDATE + RESUME + ["add"] * 2 + ["step"] * 2
    assert (effect.aborted, effect.resumed) == (7, 0)
    assert effect.stalled > 0


def test_answers_that_two_pushes_cut_off_before_one_was_complete_are_ordered_again_once() -> None:
    vllm = Slow()
    engine = engine_around(vllm, pause=PushPause.abort)
    futures = engine.submit([request(n=3)])
    engine.start_update(1)
    effect = push([], [engine], 2, EXACT).interruption
    assert effect.aborted == 3
    vllm.let.release()
    wait(futures)
    assert vllm.calls.count("add") == 2


def test_a_push_that_keeps_answers_counts_those_that_go_on() -> None:
    vllm = Slow()
    engine = engine_around(vllm)
    futures = engine.submit([request(n=3), request(n=4)])
    effect = push([], [engine], 1, EXACT).interruption
    vllm.let.release(2)
    wait(futures)
    assert vllm.calls == ["add"] * 2 + UPDATE + RESUME + ["step"] * 2
    assert (effect.aborted, effect.resumed) == (0, 7)
    assert effect.stalled > 0


@pytest.mark.parametrize("pause", PushPause)
def test_a_push_to_an_engine_without_work_stalls_nothing(pause: PushPause) -> None:
    engine = engine_around(StandIn(), pause=pause)
    engine.generate([request()])
    assert push([], [engine], 1, EXACT).interruption == Interruption()


@pytest.mark.parametrize("pause", PushPause)
def test_an_engine_that_comes_late_answers_with_the_current_weights_alone(pause: PushPause) -> None:
    vllm = StandIn()
    engine = engine_around(vllm, pause=pause)
    engine.start_update(5)
    early: list[Any] = []
    submitter = Thread(target=lambda: early.extend(engine.generate([request()])))
    submitter.start()
    submitter.join(timeout=0.2)
    assert "add" not in vllm.calls
    push([], [engine], 5, EXACT)
    submitter.join()
    assert engine.version == 5
    assert len(early) == 1


def test_a_sleeping_engine_has_its_weights_back_for_a_push_and_its_cache_after_it() -> None:
    vllm = StandIn()
    engine = engine_around(vllm, sleep_level=2)
    engine.generate([request()])
    engine.rest()
    engine.rest()
    push([], [engine], 1, EXACT)
    engine.generate([request()])
    asleep = ["sleep 2", "wake weights"]
    assert vllm.calls == ["add", "step", *asleep, *UPDATE, "wake kv_cache", *RESUME, "add", "step"]
    push([], [engine], 2, EXACT)
    assert vllm.calls[-len(UPDATE + RESUME) :] == UPDATE + RESUME, "it was awake"


def test_an_engine_that_is_not_to_sleep_stays_awake() -> None:
    vllm = StandIn()
    engine = engine_around(vllm)
    engine.rest()
    assert vllm.calls == []


def test_a_submit_during_an_update_gives_up_and_names_the_version() -> None:
    engine = engine_around(StandIn(), wait_limit=0.1)
    engine.start_update(7)
    with pytest.raises(RuntimeError, match=r"policy version 7 are not complete after 0\.1 s"):
        engine.submit([request()])


def test_a_submit_during_an_update_goes_through_once_the_update_is_complete() -> None:
    engine = engine_around(StandIn())
    engine.start_update(1)
    done: list[Any] = []
    submitter = Thread(target=lambda: done.extend(engine.generate([request()])))
    submitter.start()
    submitter.join(timeout=0.2)
    assert not done
    engine.finish_update()
    submitter.join()
    assert len(done) == 1


def test_when_a_step_fails_every_waiting_group_and_every_later_call_gets_the_error(
    prompt_requests: list[Request],
) -> None:
    engine = engine_around(StandIn(breaks=True))
    futures = engine.submit(prompt_requests)
    assert all(isinstance(future.exception(), MemoryError) for future in futures)
    for call in (lambda: engine.submit([request()]), lambda: engine.start_update(1)):
        with pytest.raises(MemoryError, match="out of blocks"):
            call()


def test_closing_fails_what_is_unfinished_and_stops_the_thread(prompt_requests: list[Request]) -> None:
    vllm = StandIn(stuck=True)
    engine = engine_around(vllm)
    futures = engine.submit(prompt_requests)
    engine.close()
    engine.close()
    assert vllm.calls[-1] == "shutdown"
    for future in futures:
        with pytest.raises(RuntimeError, match="closed"):
            future.result()
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit([request()])
