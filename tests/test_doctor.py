"""Each check of the doctor goes red for its own fault, and says which one it is."""

import asyncio
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from expert_iteration.agreement import Gap, Mismatch, TokenIds, limit_of, rows_of, unseen, verify
from expert_iteration.batching import RESPONSE, TOKENS
from expert_iteration.checkpoint import Origin
from expert_iteration.choices import Device, Dtype
from expert_iteration.config import (
    AlgorithmConfig,
    CheckpointConfig,
    HealthConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PlacementConfig,
    RayConfig,
    RunConfig,
    SamplingConfig,
)
from expert_iteration.doctor import machine, parts
from expert_iteration.doctor.finding import Finding, Status
from expert_iteration.doctor.mismatch import CHECKS, examine
from expert_iteration.doctor.subjects import Batch
from expert_iteration.engine import Request
from expert_iteration.launch import explain
from expert_iteration.reporting import Reporter
from expert_iteration.stages import Run
from expert_iteration.trainer import Trainer
from expert_iteration.types import Finish, Interruption, Rollout
from expert_iteration.weights import (
    Bucket,
    DamagedWeights,
    HostTransport,
    checksum_of,
    pack,
    push,
    refuse_damaged,
    unpack,
)
from scripts import doctor
from tests.test_config import composed
from tests.test_stages import DATA, ORIGIN, FakeWorkers

VOCABULARY, PAD, END = 32, 0, 2
PROMPTS: list[TokenIds] = [(5, 6, 7), (8, 9, 10, 11, 12), (13, 14), tuple(range(3, 30))]


class ToyModel:
    """The next token depends on the last one and on the prompt: `table`[last] + mean of `state`[prompt]."""

    def __init__(self, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        self.weights = {
            name: torch.randn(VOCABULARY, VOCABULARY, generator=random) for name in ("table", "state")
        }

    def prefix(self, prompt: Sequence[int]) -> Tensor:
        """What a cache would hold of a prompt: [vocabulary]."""
        return self.weights["state"][list(prompt)].mean(0)

    def log_probs(self, prefix: Tensor, tokens: Sequence[int]) -> Tensor:
        """[tokens, vocabulary]: of what follows each of `tokens`."""
        return (self.weights["table"][list(tokens)] + prefix).log_softmax(-1)


class ToyPolicy:
    """The trainer's side, without a fault."""

    def __init__(self) -> None:
        self.model = ToyModel()
        self._noise = torch.Generator().manual_seed(1)

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        return iter(self.model.weights.items())

    def _following(self, row: TensorDictBase) -> Tensor:
        """[responses, vocabulary]"""
        tokens, mask = row[TOKENS].tolist(), row[RESPONSE]
        prompt = tokens[: int(mask.int().argmax())]
        return self.model.log_probs(self.model.prefix(prompt), tokens[:-1])[mask[1:]]

    def score(self, rows: Sequence[TensorDictBase]) -> list[Tensor]:
        scores = []
        for row in rows:
            score = torch.zeros(len(row[TOKENS]))
            targets = row[TOKENS][row[RESPONSE]][:, None]
            score[row[RESPONSE]] = self._following(row).gather(-1, targets)[:, 0]
            scores.append(score)
        return scores

    def best(self, row: TensorDictBase) -> Tensor:
        return self._following(row).max(-1).values

    def disturb(self) -> None:
        for weight in self.model.weights.values():
            weight.add_(0.5 * torch.randn(weight.shape, generator=self._noise))

    def favour_end(self, rows: Sequence[TensorDictBase]) -> None:
        assert rows
        self.model.weights["table"][:, END] = self.model.weights["table"].max(-1).values


class ToyEngine:
    """The engine's side, without a fault: weights of its own, a cache of prompts that a push resets."""

    end = END

    def __init__(self) -> None:
        self.model = ToyModel()
        self.version = 0
        self.arriving = 0
        self.cache: dict[TokenIds, Tensor] = {}

    def start_update(self, version: int) -> None:
        self.arriving = version

    def receive(self, bucket: Bucket) -> None:
        refuse_damaged(bucket)
        self.model.weights |= {name: tensor.clone() for name, tensor in unpack(bucket)}

    def finish_update(self) -> Interruption:
        self.version = self.arriving
        self.cache.clear()
        return Interruption()

    def generate(self, requests: Sequence[Request], limit: float | None = None) -> list[tuple[Rollout, ...]]:
        assert limit != 0
        return [
            tuple(self.answer(request, (request.seed or 0) + index) for index in range(request.n))
            for request in requests
        ]

    def sample(self, requests: Sequence[Request]) -> dict[str, list[tuple[Rollout, ...]]]:
        return {"collector 7": self.generate(requests)}

    def answer(self, request: Request, seed: int) -> Rollout:
        random = torch.Generator().manual_seed(seed)
        prefix = self.cache.setdefault(request.prompt, self.model.prefix(request.prompt))
        last, tokens, log_probs = request.prompt[-1], [], []
        while len(tokens) < request.max_tokens and last != self.end:
            [scores] = self.model.log_probs(prefix, [last])
            drawn = torch.multinomial(scores.exp(), 1, generator=random)
            last = int(drawn if request.temperature else scores.argmax())
            tokens.append(last)
            log_probs.append(float(scores[last]))
        finish = Finish.STOP if last == self.end else Finish.LENGTH
        return Rollout(0, tuple(tokens), tuple(log_probs), "", finish, self.version, self.version)


class OldWeights(ToyEngine):
    """Takes a push, and goes on as before."""

    def receive(self, bucket: Bucket) -> None:
        refuse_damaged(bucket)


class OtherModel(ToyEngine):
    """Holds another model from the start."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ToyModel(seed=9)


class HalfAPush(ToyEngine):
    """Loses one of the tensors."""

    def receive(self, bucket: Bucket) -> None:
        self.model.weights |= {name: new.clone() for name, new in unpack(bucket) if name == "state"}


class BadMemory(ToyEngine):
    """One bit flips on the way."""

    def receive(self, bucket: Bucket) -> None:
        data = bucket.data.copy()
        data[100] ^= 1
        super().receive(replace(bucket, data=data))


class StalePrefixes(ToyEngine):
    """Keeps what the weights before made of a prompt."""

    def finish_update(self) -> Interruption:
        kept = dict(self.cache)
        effect = super().finish_update()
        self.cache = kept
        return effect


class Changed(ToyEngine):
    """Gives answers that are not what was sampled."""

    def answer(self, request: Request, seed: int) -> Rollout:
        return self.change(super().answer(request, seed))

    def change(self, rollout: Rollout) -> Rollout:
        raise NotImplementedError


class LateLogProbs(Changed):
    """Notes each token's log-prob beside the next one."""

    def change(self, rollout: Rollout) -> Rollout:
        return replace(rollout, log_probs=(0.0, *rollout.log_probs[:-1]))


class LosesLogProbs(Changed):
    def change(self, rollout: Rollout) -> Rollout:
        return replace(rollout, log_probs=rollout.log_probs[:-1])


class StripsEnd(Changed):
    """Takes end-of-sequence off the response."""

    def change(self, rollout: Rollout) -> Rollout:
        if rollout.finish is Finish.LENGTH or len(rollout.token_ids) == 1:
            return rollout
        return replace(rollout, token_ids=rollout.token_ids[:-1], log_probs=rollout.log_probs[:-1])


class OtherEnd(ToyEngine):
    """Takes another token for end-of-sequence."""

    end = VOCABULARY


class NeverEnds(Changed):
    """Says of every answer that it was cut off."""

    def change(self, rollout: Rollout) -> Rollout:
        return replace(rollout, finish=Finish.LENGTH)


class SecondChoice(ToyEngine):
    """Its greedy tokens are drawn."""

    def answer(self, request: Request, seed: int) -> Rollout:
        return super().answer(replace(request, temperature=1.0), seed)


class StandsStill(ToyPolicy):
    """Weights that do not change."""

    def disturb(self) -> None: ...


class ScoresByNeighbours(ToyPolicy):
    """Lets the padding of a short row count."""

    def score(self, rows: Sequence[TensorDictBase]) -> list[Tensor]:
        longest = max(len(row[TOKENS]) for row in rows)
        return [score * (longest / len(score)) ** 0.2 for score in super().score(rows)]


class GoesSilent(ToyEngine):
    """Answers nothing after a push."""

    def generate(self, requests: Sequence[Request], limit: float | None = None) -> list[tuple[Rollout, ...]]:
        if self.version:
            raise TimeoutError(f"the engine left {len(requests)} groups undone")
        return super().generate(requests, limit)


def masked_by_ids(answers: Sequence[Any]) -> list[TensorDict]:
    """Masks that take every pad token for padding."""
    rows = rows_of(answers)
    for row in rows:
        row[RESPONSE] = row[RESPONSE] & (row[TOKENS] != PAD)
    return rows


def masked_one_early(answers: Sequence[Any]) -> list[TensorDict]:
    rows = rows_of(answers)
    for row in rows:
        row[RESPONSE] = torch.cat([row[RESPONSE][1:], torch.tensor([True])])
    return rows


def findings(
    engine: ToyEngine | None = None, policy: ToyPolicy | None = None, **changes: Any
) -> list[Finding]:
    batch = Batch(PROMPTS, frozenset([END]), PAD, limit=1e-3, dtype=torch.float32, wait_limit=9.0)
    return list(examine(engine or ToyEngine(), policy or ToyPolicy(), replace(batch, **changes)))


def only_red(found: Sequence[Finding]) -> Finding:
    [one] = [finding for finding in found if finding.status is Status.RED]
    assert [finding.check for finding in found] == list(CHECKS)
    assert one.remedy
    return one


def test_an_engine_without_a_fault_is_green_throughout() -> None:
    found = findings()
    assert [finding.check for finding in found] == list(CHECKS)
    assert {finding.status for finding in found} == {Status.GREEN}, found


@pytest.mark.parametrize(
    ("engine", "check", "cause"),
    [
        (OtherModel, "initial weights", "with other weights, or otherwise"),
        (LateLogProbs, "initial weights", "off by one"),
        (LosesLogProbs, "initial weights", "log-probs"),
        (BadMemory, "checksum", "arrived with the checksum"),
        (GoesSilent, "checksum", "the engine or the trainer broke: the engine left"),
        (StalePrefixes, "prefix cache", "from what the old weights made of it"),
        (SecondChoice, "greedy tokens", "less likely for the trainer than its own choice"),
        (StripsEnd, "end of sequence", "does not hold the end-of-sequence token"),
        (OtherEnd, "end of sequence", "goes on after its end-of-sequence token"),
        (NeverEnds, "end of sequence", "none of 16 answers ended"),
    ],
)
def test_a_faulty_engine_turns_one_check_red(engine: type[ToyEngine], check: str, cause: str) -> None:
    finding = only_red(findings(engine()))
    assert finding.check == check
    assert cause in finding.detail


@pytest.mark.parametrize(
    ("engine", "check", "cause"),
    [
        (OldWeights, "log-probs", "still computes with the old weights"),
        (HalfAPush, "log-probs", "with other weights"),
    ],
)
def test_a_fault_that_spoils_several_checks_is_named_by_one_of_them(
    engine: type[ToyEngine], check: str, cause: str
) -> None:
    assert any(
        finding.status is Status.RED and finding.check == check and cause in finding.detail
        for finding in findings(engine())
    )


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        (masked_by_ids, "leaves out pad tokens"),
        (masked_one_early, "starts at token 2, but the response at token 3"),
    ],
)
def test_masks_that_do_not_come_from_lengths_are_red_before_an_engine_is_asked(rows: Any, cause: str) -> None:
    found = findings(rows_of=rows)
    assert cause in only_red(found).detail
    assert [finding.status for finding in found[1:]] == [Status.SKIPPED] * (len(CHECKS) - 1)


def test_a_push_that_would_change_nothing_is_red_for_it_would_prove_nothing() -> None:
    finding = only_red(findings(policy=StandsStill()))
    assert finding.check == "checksum" and "nothing could be told" in finding.detail


def test_a_trainer_that_counts_padding_is_red_under_padding() -> None:
    assert only_red(findings(policy=ScoresByNeighbours())).check == "padding"


# In training


def run_config(**changes: Any) -> RunConfig:
    plain = RunConfig(
        sampling=SamplingConfig(max_tokens=12),
        model=exact_model(),
        algorithm=AlgorithmConfig(name="expert_iteration"),
    )
    return replace(plain, **changes)


def exact_model() -> ModelConfig:
    return ModelConfig(path="toy", engine_dtype=Dtype.float32)


def pushed(engine: ToyEngine, version: int = 3) -> tuple[ToyEngine, ToyPolicy]:
    """After prompts were answered, weights changed, and were pushed."""
    policy = ToyPolicy()
    engine.generate([Request(prompt, 1, 1.0, 4, seed=0) for prompt in PROMPTS])
    policy.disturb()
    push(policy.named_weights(), [engine], version, HostTransport(torch.float32))
    return engine, policy


def test_a_push_that_arrived_is_verified_with_its_figures() -> None:
    engine, policy = pushed(ToyEngine())
    metrics = verify([engine], policy.score, PROMPTS, 3, run_config())
    assert metrics["push/mismatch_max"] < 1e-5
    assert {"push/mismatch_mean", "push/mismatch_max", "push/mismatch_kl"} <= metrics.keys()


@pytest.mark.parametrize(
    ("engine", "cause"),
    [
        (OldWeights, "other weights"),
        (HalfAPush, "other weights"),
        (StalePrefixes, "prefix cache was not reset"),
        (LateLogProbs, "off by one"),
    ],
)
def test_a_push_after_which_engine_and_trainer_disagree_ends_the_run_and_names_the_cause(
    engine: type[ToyEngine], cause: str
) -> None:
    faulty, policy = pushed(engine())
    with pytest.raises(Mismatch, match=cause) as raised:
        verify([faulty], policy.score, PROMPTS, 3, run_config())
    assert "collector 7" in str(raised.value) and "policy version 3" in str(raised.value)


def test_an_engine_that_answers_as_another_version_is_told_apart() -> None:
    engine, policy = pushed(ToyEngine(), version=2)
    with pytest.raises(Mismatch, match="answers as policy version 2"):
        verify([engine], policy.score, PROMPTS, 3, run_config())


def test_one_bad_engine_among_good_ones_is_found() -> None:
    (good, policy), (bad, _) = pushed(ToyEngine()), pushed(OldWeights())
    with pytest.raises(Mismatch):
        verify([good, bad], policy.score, PROMPTS, 3, run_config())


def test_max_mismatch_decides_what_agreement_is() -> None:
    faulty, policy = pushed(OldWeights())
    lenient = run_config(health=HealthConfig(max_mismatch=50.0))
    assert verify([faulty], policy.score, PROMPTS, 3, lenient)["push/mismatch_mean"] > 0.1


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        (ModelConfig(engine_dtype=Dtype.float32), 1e-3),
        (ModelConfig(), 0.05),
        (ModelConfig(engine_dtype=Dtype.float32, autocast=True), 0.05),
        (ModelConfig(engine_dtype=Dtype.float32, dtype=Dtype.bfloat16), 0.05),
    ],
)
def test_the_limit_is_that_of_the_less_exact_side(model: ModelConfig, limit: float) -> None:
    assert limit_of(run_config(model=model)) == limit


def test_log_probs_that_are_no_numbers_are_no_agreement() -> None:
    assert not Gap.between(torch.tensor([float("nan")]), torch.tensor([0.0])).within(1e9)


def test_the_kl_of_a_gap_is_the_estimator_k3() -> None:
    gap = Gap.between(torch.tensor([-1.0]), torch.tensor([-2.0]))
    assert gap.kl == pytest.approx(torch.exp(torch.tensor(-1.0)).item() - 1 + 1)
    assert (gap.mean, gap.largest) == (1.0, 1.0)


def test_unseen_prompts_differ_from_the_seen_ones_in_the_first_token_alone() -> None:
    for number in range(300):
        for prompt, new in zip(PROMPTS, unseen(PROMPTS, number), strict=True):
            assert new[0] != prompt[0] and new[1:] == prompt[1:]


def test_a_bucket_that_changed_on_the_way_is_refused_and_one_without_a_checksum_is_not() -> None:
    [bucket] = pack([("weight", torch.ones(4))], torch.float32)
    refuse_damaged(bucket)
    sent = replace(bucket, checksum=checksum_of(bucket))
    refuse_damaged(sent)
    for changed in (replace(sent, names=("other",)), replace(sent, shapes=((2, 2),))):
        with pytest.raises(DamagedWeights):
            refuse_damaged(changed)


class NotesProbes(FakeWorkers):
    """Notes by how many prompts each push is verified."""

    def __init__(self) -> None:
        super().__init__()
        self.probes: dict[int, int] = {}

    async def publish(self, version: int, probes: Sequence[TokenIds] = ()) -> dict[str, float]:
        self.probes[version] = len(probes)
        return {}


@pytest.mark.parametrize(("every", "verified"), [(0, []), (1, [1, 2, 3, 4, 5]), (2, [1, 3, 5]), (10, [1])])
def test_the_first_push_is_verified_and_then_one_in_so_many(
    tmp_path: Path, every: int, verified: list[int]
) -> None:
    config = run_config(
        iterations=5,
        prompts_per_iteration=2,
        algorithm=AlgorithmConfig(name="expert_iteration"),
        health=HealthConfig(verify_push_every=every),
    )
    workers = NotesProbes()
    with Reporter(config, tmp_path, io.StringIO()) as reporter:
        reporter.start()
        run = Run(config, tmp_path, DATA, workers, reporter, Origin(ORIGIN))
        for version in range(1, 6):
            asyncio.run(run.publish(version))
        reporter.finish("finished", Counter())
    assert [version for version, count in workers.probes.items() if count] == verified


def test_a_trainer_whose_weights_change_on_the_way_ends_the_run_with_exit_code_5(tiny_model: Path) -> None:
    options = OptimizerConfig(learning_rate=1e-3)
    config = replace(run_config(optimizer=options), micro_batch_tokens=64)
    config = replace(config, model=replace(config.model, path=str(tiny_model)))
    config = replace(
        config, algorithm=AlgorithmConfig(name="expert_iteration"), loss=LossConfig(length_divisor=8)
    )
    trainer = Trainer(config, "cpu", None)
    with pytest.raises(Mismatch, match="arrived with the checksum") as raised:
        trainer.publish([BadMemory()], 1, probes=PROMPTS)
    assert explain(raised.value) == 5


# The machine and the files


def test_only_a_python_of_the_pinned_sets_is_green() -> None:
    assert machine.python((3, 11, 7), "python").status is Status.GREEN
    assert "3.10.1" in machine.python((3, 10, 1), "python").detail


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    (tmp_path / "cpu.txt").write_text("# pins\nRay==2.60.0\ntorch==2.13.0+cpu\n")
    (tmp_path / "cpu-without.txt").write_text("# none\ntorchvision ; python_version < '0'\n")
    return tmp_path


@pytest.mark.parametrize(
    ("installed", "cause"),
    [
        ({"ray": "2.59.0", "torch": "2.13.0+cpu"}, "ray 2.59.0 (pinned: 2.60.0)"),
        ({"ray": "2.60.0"}, "torch is missing (pinned: 2.13.0+cpu)"),
        ({"ray": "2.60.0", "torch": "2.13.0+cpu", "torchvision": "1"}, "torchvision 1 (must not be there)"),
    ],
)
def test_packages_that_are_not_as_pinned_are_named(
    requirements: Path, installed: dict[str, str], cause: str
) -> None:
    assert cause in machine.packages(installed, requirements, "cpu").detail


def test_packages_as_pinned_are_green_and_without_pins_nothing_is_said(requirements: Path) -> None:
    installed = {"ray": "2.60.0", "torch": "2.13.0+cpu", "more": "1"}
    assert machine.packages(installed, requirements, "cpu").status is Status.GREEN
    assert machine.packages(installed, requirements, "gpu").status is Status.SKIPPED


ONE_GPU = replace(PlacementConfig(), device=Device.cuda, shared=True)
CUDA_13 = {"nvidia-cuda-runtime": "13.0.96"}


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        (None, "nvidia-smi does not answer"),
        ([], "the placement needs 1, and 0 are here"),
        ([machine.Gpu("H100", "570.12", 80, 80)], "driver 570.12 is too old for CUDA 13"),
    ],
)
def test_a_machine_without_the_gpus_of_the_placement_is_red(found: Any, cause: str) -> None:
    finding = machine.gpu(run_config(placement=ONE_GPU), found, CUDA_13)
    assert finding.status is Status.RED and cause in finding.detail


def test_gpus_are_shown_with_their_driver_and_none_is_needed_on_cpu() -> None:
    good = machine.gpu(run_config(placement=ONE_GPU), [machine.Gpu("H100", "580.1", 80_000, 79_000)], CUDA_13)
    assert good.status is Status.GREEN and "driver 580.1; H100 with 79,000 of 80,000" in good.detail
    assert machine.gpu(run_config(), None, {}).status is Status.GREEN


def test_the_gpus_of_a_cluster_are_not_looked_for_on_this_machine() -> None:
    joining = run_config(placement=ONE_GPU, ray=RayConfig(address="auto"))
    assert machine.gpu(joining, None, {}).status is Status.SKIPPED


def test_room_is_red_when_it_does_not_suffice() -> None:
    assert machine.disk(Path("/"), free=5, needed=6).status is Status.RED
    assert machine.disk(Path("/"), free=6, needed=6).status is Status.GREEN
    assert machine.disk(Path("/"), free=6, needed=None).status is Status.SKIPPED
    assert machine.shared_memory(64, free=63, needed=64).status is Status.RED


def test_a_folder_that_cannot_be_written_is_red_and_one_that_can_is_left_as_it_was(tmp_path: Path) -> None:
    assert machine.outputs(tmp_path / "new" / "run").status is Status.GREEN
    assert list(tmp_path.iterdir()) == []
    assert machine.outputs(Path("/proc/self/run")).status is Status.RED


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    save_file({"weight": torch.zeros(10, 3), "bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    return tmp_path


def test_a_model_folder_tells_its_size_from_the_headers(model: Path) -> None:
    assert "33 weights" in parts.model(model).detail
    kept = CheckpointConfig(keep_last=2, keep_best=True)
    assert parts.checkpoint_bytes(run_config(checkpoint=kept), model) == 4 * 33 * 4 * 3


def test_a_model_that_asks_for_code_of_its_author_is_red(model: Path) -> None:
    (model / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "evil.Tokenizer"}}')
    finding = parts.model(model)
    assert finding.status is Status.RED and "tokenizer_config.json asks for code" in finding.detail


@pytest.mark.parametrize(
    ("file", "text"), [("config.json", None), ("model.safetensors", None), ("model.safetensors", "x")]
)
def test_a_model_folder_that_is_incomplete_or_broken_is_red(model: Path, file: str, text: str | None) -> None:
    (model / file).unlink()
    if text is not None:
        (model / file).write_text(text)
    assert parts.model(model).status is Status.RED


def test_weights_that_cannot_be_counted_leave_the_need_of_checkpoints_open(model: Path) -> None:
    (model / "model.safetensors").write_text("x")
    assert parts.checkpoint_bytes(run_config(), model) is None


@pytest.fixture
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(tiny_model)


@dataclass
class LosesSpaces:
    """A tokenizer that strips white space, as a custom one under a foreign pre-tokenizer."""

    eos_token_id: int = 2
    said: list[str] = field(default_factory=list)

    def encode(self, text: str, **_: Any) -> list[int]:
        self.said.append(text.replace(" ", ""))
        return [1]

    def decode(self, *_: Any, **__: Any) -> str:
        return self.said[-1]


def test_a_tokenizer_must_give_every_nasty_text_back(tokenizer: PreTrainedTokenizerFast) -> None:
    assert parts.tokenizer(tokenizer).status is Status.GREEN
    assert "comes back as" in parts.tokenizer(LosesSpaces()).detail


def test_the_prompts_of_every_task_end_well(tokenizer: PreTrainedTokenizerFast) -> None:
    for task in ("gsm8k", "math", "jsonl"):
        assert parts.templates(composed(f"task={task}"), tokenizer).status is Status.GREEN


@pytest.mark.parametrize(
    ("override", "cause"),
    [
        ("task.prompt.prefix='Answer: '", "models start words with the space before them"),
        ("task.prompt.prefix='<|im_end|>'", "ends with end-of-sequence"),
        ("task.prompt.stop=['So']", "ends with the stop string 'So'"),
        ("task.prompt.chat=true", "the tokenizer has no chat template"),
    ],
)
def test_a_prompt_after_which_no_good_answer_can_come_is_red(
    tokenizer: PreTrainedTokenizerFast, override: str, cause: str
) -> None:
    extra = ["task.prompt.prefix=So"] if "stop" in override else []
    finding = parts.templates(composed("task=gsm8k", override, *extra), tokenizer)
    assert finding.status is Status.RED and cause in finding.detail


# The command


@pytest.fixture(autouse=True)
def logs_of_red_checks(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("logs")))


def asked(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code and output of the script, in this process."""
    code = 0
    try:
        doctor.main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    shown = capfd.readouterr()
    return code, shown.out, shown.err


def test_a_quick_look_at_the_demo_is_green(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = asked(capfd, "--quick", "placement=local", f"hydra.run.dir={tmp_path}/run")
    assert code == 0, out
    assert "red" not in out.split("\n\n")[0] and "templates" in out
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_red_check_is_exit_code_1_with_its_remedy_also_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = asked(capfd, "--quick", "--json", "placement=local", "hydra.run.dir=/proc/self/run")
    told = json.loads(out)
    assert code == 1 and told["green"] is False
    red = {check["check"]: check["remedy"] for check in told["checks"] if check["status"] == "red"}
    assert "hydra.run.dir" in red["outputs"]


def test_a_placement_without_its_gpus_is_shown_beside_the_other_checks(
    capfd: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = asked(capfd, "--quick", "--json", "placement=split", "placement.train.devices=99")
    status = {check["check"]: check["status"] for check in json.loads(out)["checks"]}
    assert code == 1
    assert (status["configuration"], status["tokenizer"]) == ("red", "green")


def test_an_unknown_key_is_one_line_and_exit_code_2(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = asked(capfd, "--quick", "no.such=1")
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.long
@pytest.mark.real
def test_the_whole_doctor_is_green_on_the_demo(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = asked(capfd, "--json", "placement=local", f"hydra.run.dir={tmp_path}/run")
    status = {check["check"]: check["status"] for check in json.loads(out)["checks"]}
    assert code == 0, out
    assert {status[check] for check in ("vllm", *CHECKS)} == {"green"}
