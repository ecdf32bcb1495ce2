"""The configuration: one dataclass for each group of the yaml tree.

The dataclasses are the schemas of the yaml tree under ``config/``: Hydra refuses unknown keys and
wrong types against them. What no single key can tell is refused by checks/.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from expert_iteration.choices import (
    Device,
    Dtype,
    Duplicates,
    EngineKind,
    KLEstimator,
    KLSchedule,
    Normalization,
    OnBadRow,
    OnCollapse,
    Prefer,
    Priority,
    PromptStrategy,
    PushBackend,
    PushGroups,
    PushPause,
    Runtime,
    Sampler,
    Schedule,
    Sharding,
    Start,
    Strategy,
    WandbMode,
)

MIXTURE = "mixture"
"""`task.name` of several datasets at once."""


class ConfigError(ValueError):
    """The user's configuration cannot work. The message names the keys, the values and the remedy."""


@dataclass
class ModeConfig:
    """When to collect, learn and publish. Synchronous is asynchronous with a staleness of 0."""

    max_staleness: int = 0
    """Oldest policy version trained on, in versions behind the trainer."""
    publish_every: int | None = None
    """Optimizer steps between weight pushes; null: once, at the end of each iteration."""
    min_buffer: int = 1
    """Kept samples the buffer must hold before the learner starts."""
    prompts_per_request: int | None = None
    """Prompts handed to a collector at once; null: its whole share of an iteration."""


@dataclass
class PromptConfig:
    """How a question is put to the model, and the format its answer must have."""

    template: str = ""
    """A file of expert_iteration/templates, without suffix, or the path of a text file of your own that
    holds `{question}`. Empty only in a mixture, whose members have their own."""
    style: str = ""
    """Answer format the grader expects: a row of expert_iteration/grading/styles.py, or `ifeval`."""
    chat: bool = False
    """Put the rendered template into a turn of the tokenizer's chat template."""
    system: str | None = None
    """System message; needs `chat`."""
    prefix: str = ""
    """Text put in the mouth of the assistant: the response continues it."""
    stop: list[str] = field(default_factory=list)
    """Strings that end a response; they stay part of it."""
    few_shot: str | None = None
    """File of worked examples, `question`, `reasoning` and `gold`, shown before the question: in front of
    the template's own question, or with `chat` as earlier turns."""


@dataclass
class FieldsConfig:
    """What the fields of a row are called, for the reader `jsonl`; all but the first two may be absent."""

    question: str = "question"
    gold: str = "gold"
    reasoning: str = "reasoning"
    level: str = "level"
    subject: str = "subject"
    id: str = "id"


@dataclass
class DatasetConfig:
    """Where questions come from and how they are asked."""

    name: str = MISSING
    """A reader of expert_iteration/data/readers.py."""
    path: str | None = None
    """Folder of JSONL, CSV or Parquet files, or one such file with all rows; null: the hub."""
    hub_id: str | None = None
    hub_config: str | None = None
    hub_revision: str | None = None
    """Commit on the hub; without one the rows may change from run to run."""
    train: str = "train"
    """Split on the hub, or file name under `path`, with or without suffix."""
    evaluation: str | None = "test"
    """Likewise. null, or a `path` that is one file: `held_out` of the training rows take its place."""
    held_out: float = 0.1
    """Share of the training rows that a hash of the question keeps for evaluation, whatever the seed."""
    limit: int | None = None
    """Use only the first rows of the training set."""
    max_tokens: int = MISSING
    """Longest response, in tokens; the default of sampling.max_tokens. Members leave it to the mixture."""
    weight: float = 1.0
    """Share of this dataset in a mixture, relative to the other members."""
    fields: FieldsConfig = field(default_factory=FieldsConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)


@dataclass
class TaskConfig(DatasetConfig):
    """One dataset, or with `name: mixture` several."""

    members: dict[str, DatasetConfig] = field(default_factory=dict)
    """Of a mixture, by name. Each has its own rows and prompt; eval.limit counts for each."""


@dataclass
class DataConfig:
    """What happens to rows that cannot be used."""

    on_bad_row: OnBadRow = OnBadRow.drop
    """`drop` lists bad rows in the data report and goes on; `fail` stops before any model is loaded."""


@dataclass
class PromptsConfig:
    """Which prompts are visited."""

    strategy: PromptStrategy = PromptStrategy.uniform
    retest_every: int = 5
    """Iterations for which frontier leaves out a prompt that was answered right: once where right answers
    are imitated, throughout where answers are compared."""
    park_after: int = 8
    """Answers without success after which frontier parks a prompt."""
    retry_every: int = 3
    """Iterations for which it is parked at first; longer each time."""


@dataclass
class AlgorithmConfig:
    name: str = MISSING
    """A row of expert_iteration/algorithms.py."""
    variant: str | None = None
    """One of the losses of that row; null: its first."""
    start: Start = Start.last
    """Weights that each iteration trains from: those of the last one, or the initial model's."""
    accumulate: bool = False
    """Train on what all iterations kept so far, not on the last one's alone."""


@dataclass
class ValuesConfig:
    """Optimal values V* of the training prompts, for A*-PO."""

    path: str | None = None
    """File that scripts/estimate_values.py writes and training reads."""
    samples: int = 8
    """Answers of the reference model to each prompt."""
    beta: float = 0.5
    """Near 0 the value is the best reward among them, for large numbers their mean."""
    drop_unsolved: bool = False
    """Leave out the prompts that none of them solves."""


@dataclass
class SamplingConfig:
    """How rollouts are sampled. top_p and top_k stay off: they would bias the log-probs."""

    temperature: float = 1.0
    min_tokens: int = 4
    max_tokens: int = MISSING
    at_once: int | None = None
    """Answers to a prompt that are sampled at a time; no more are once `selection.top_k` of them are right.
    null: all of them, but a quarter with prompts.strategy=frontier where that is possible."""
    refill: int = 0
    """Other prompts tried at most when all answers to one are right or all are wrong, by methods that
    compare the answers to a prompt with each other."""


@dataclass
class RationalisationConfig:
    """Second answers, with the right one as a hint, to prompts that no answer solves."""

    enabled: bool = False
    hint: str = " (Hint: the answer is {gold}.)"
    """Put after the question; `{gold}` stands for the right answer."""
    forbidden: list[str] = field(default_factory=lambda: ["hint"])
    """Texts that betray the hint: answers that hold one are not kept."""
    max_share: float = 0.25
    """Share of an iteration's prompts that may be asked again, at most."""


@dataclass
class GradingConfig:
    workers: int = 2
    """Killable math-verify processes per collector; started when the first answer needs them."""
    deadline: float = 5.0
    """Seconds before a verdict is `timeout`."""


@dataclass
class RewardConfig:
    """Shares of the reward that do not depend on the answer; grading/shaping.py has the formula.

    Their sum is at most 0.5, so that every correct answer beats every wrong one.
    """

    format: float = 0.0
    """For the format that the prompt asks for."""
    brevity: float = 0.0
    """For the part of sampling.max_tokens that was not used."""
    variety: float = 0.0
    """For the share of runs of tokens that are said once only."""


@dataclass
class SelectionConfig:
    strategy: Strategy = Strategy.top_k
    top_k: int | None = None
    """Kept per prompt; null: all that may be kept."""
    min_reward: float | None = None
    """null: only successful answers may be kept; a number lowers the gate by hand."""
    prefer: Prefer = Prefer.first
    """Which of the answers with equal rewards comes first."""
    duplicates: Duplicates = Duplicates.text
    """Which answers to one prompt count as the same; only the first of them is kept."""


@dataclass
class LossConfig:
    """Numbers of the losses in losses.py; which of them is minimised is the algorithm's choice."""

    normalization: Normalization = Normalization.token
    length_divisor: int = MISSING
    """Tokens that `normalization=constant` divides each sequence by."""
    normalize_std: bool = True
    """Divide group advantages by the standard deviation of the group's rewards."""
    clip: float = 0.2
    """Ratios are clipped to [1 - clip, 1 + clip]."""
    clip_high: float | None = None
    """Upper side of the clip; null: the same."""
    importance_cap: float = 2.0
    """Largest importance weight of a response that is more than one policy version old."""
    beta: float = 0.1
    """Temperature of minor_sft and of the regression of A*-PO."""
    kl_coefficient: float = 0.0
    kl_estimator: KLEstimator = KLEstimator.k3
    kl_schedule: KLSchedule = KLSchedule.constant


@dataclass
class OptimizerConfig:
    learning_rate: float = MISSING
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    warmup_steps: int = 0
    schedule: Schedule = Schedule.constant
    max_grad_norm: float = 1.0
    reset_each_iteration: bool = False
    spike_factor: float | None = None
    """Steps whose gradient norm exceeds this many times the median of the steps before are left out; null:
    none are, as max_grad_norm bounds them all."""
    max_skipped: int = 10
    """Steps left out in a row after which the run ends: loss or gradient was not finite, or a spike."""


@dataclass
class AdaptiveRow:
    """Batch size and learning rate of an iteration that kept few enough samples."""

    at_most: int | None = None
    """Kept samples; null: any number."""
    batch_size: int = MISSING
    learning_rate: float = MISSING


def published_table() -> list[AdaptiveRow]:
    """Of a student study on CS336's expert iteration, for Qwen2.5-Math-1.5B."""
    return [AdaptiveRow(23, 8, 3.5e-5), AdaptiveRow(128, 32, 5e-5), AdaptiveRow(None, 64, 7e-5)]


@dataclass
class AdaptiveConfig:
    """Small batches at a low rate while little is kept; synchronous only."""

    enabled: bool = False
    """Replaces batch_size and optimizer.learning_rate by the first row of `table` that fits."""
    table: list[AdaptiveRow] = field(default_factory=published_table)


@dataclass
class BufferConfig:
    sampler: Sampler = Sampler.without_replacement
    capacity: int = 1_000_000
    priority: Priority = Priority.reward
    """For the prioritized sampler, like the next two (arXiv 1511.05952)."""
    priority_alpha: float = 0.8
    """Samples are read in proportion to priority ** alpha."""
    priority_beta: float = 0.4
    """How far importance weights in the loss make up for that: 1 leaves the expected gradient unbiased."""


@dataclass
class LoraConfig:
    """Low-rank adapters that are trained in place of the weights (arXiv 2106.09685)."""

    rank: int = 0
    """0: no adapters, all weights are trained."""
    alpha: int = 32
    """What an adapter adds is multiplied by alpha / rank."""
    targets: list[str] | None = None
    """Linear layers of the decoder that get one, such as q_proj; null: all."""


@dataclass
class ModelConfig:
    path: str = MISSING
    """Folder or hub id; `demo` is the model shipped with the package."""
    revision: str | None = None
    max_length: int = MISSING
    """Longest prompt plus response, in tokens."""
    learning_rate: float = MISSING
    """A rate known to work for this model; the default of optimizer.learning_rate."""
    dtype: Dtype = Dtype.float32
    """Of the trained weights."""
    autocast: bool = False
    """Compute forward and backward in bfloat16, keep the weights in `dtype`."""
    gradient_checkpointing: bool = False
    engine_dtype: Dtype = Dtype.bfloat16
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass
class TrainPlacement:
    devices: int = 1
    """Trainer ranks, one device each."""
    threads: int = 1
    """CPU threads of each rank."""
    sharding: Sharding = Sharding.none
    cpu_offload: bool = False
    """Keep the parts of a sharded model and its moments in the host's memory, and take the steps there."""


@dataclass
class InferPlacement:
    replicas: int = 1
    tensor_parallel: int = 1
    threads: int = 1
    memory_fraction: float = 0.9
    """Share of a GPU's memory that one engine may take."""
    kv_cache_mib: int | None = 256
    """Size of the KV cache on CPU; null: what memory_fraction leaves."""
    max_num_seqs: int = 256
    """Answers that one engine works on at a time."""
    engine: EngineKind = EngineKind.in_process
    prefix_caching: bool = True
    """Keep what was computed of a prompt for the next answer that begins alike."""
    chunked_prefill: bool | None = None
    """Read long prompts in parts, beside answers that go on; null: as vLLM chooses, on CPU never."""
    quantization: str | None = None
    """A method of vLLM's, such as fp8, that makes smaller weights of those it is given; GPUs only."""
    sleep_level: int = 0
    """What an engine gives up while the trainer learns: 0 nothing, 1 the KV cache, and its weights go to the
    host, 2 both for good, as the next push brings weights. For a GPU that they share, and mode=sync."""


@dataclass
class ReferencePlacement:
    devices: int = 1
    offload: bool = False
    """Keep the reference's weights on the host while the trainer learns. For a GPU that they share, and
    mode=sync."""


@dataclass
class PlacementConfig:
    device: Device = Device.cpu
    shared: bool = False
    """Trainer, engine and reference share one GPU."""
    nodes: int = 1
    """Nodes of a cluster that the parts are spread over; more than one need ray.address."""
    train: TrainPlacement = field(default_factory=TrainPlacement)
    infer: InferPlacement = field(default_factory=InferPlacement)
    reference: ReferencePlacement = field(default_factory=ReferencePlacement)


@dataclass
class PushConfig:
    """How trained weights get to the engines."""

    backend: PushBackend = PushBackend.host
    groups: PushGroups = PushGroups.one
    """Of backend=nccl."""
    bucket_mib: int = 64
    """Size of the pieces in which weights travel; a larger tensor is a piece of its own."""
    pause: PushPause = PushPause.keep
    """In synchronous mode nothing is under way when a push begins."""


HOST_PUSH = PushConfig()
"""For engines that get weights from this process, or none."""


@dataclass
class EvalConfig:
    every: int = 1
    """Iterations between evaluations; 0: only at start and end."""
    limit: int | None = 300
    """Questions of the evaluation set that are used; null: all."""
    samples: int = 1
    """Sampled answers to each question, for each of `temperatures` and of `seeds`."""
    ks: list[int] | None = None
    """k of pass@k and maj@k; null: 1 and `samples`."""
    temperatures: list[float] | None = None
    """Of the sampled answers; null: sampling.temperature. Metrics that name none belong to the first."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Of the sampled answers; the same questions and seeds in every evaluation."""
    against: str | None = None
    """Folder of another evaluation of the same questions, with which scripts/evaluate.py compares."""


@dataclass
class HealthConfig:
    """When a run is in trouble, and what is done about it."""

    on_collapse: OnCollapse = OnCollapse.warn
    """`stop` ends the run with a checkpoint; `raise_temperature` samples the next iteration hotter."""
    entropy_floor: float = 0.05
    """Share of the first iteration's token entropy below which sampling has collapsed."""
    distinct_floor: float = 0.0
    """Likewise, share of different answers to a prompt."""
    temperature_factor: float = 1.1
    max_temperature: float = 1.5
    patience: int | None = None
    """Evaluations without a better greedy accuracy after which the run ends; null: it goes on."""
    min_improvement: float = 0.0
    """What counts as better."""
    measure_kl: bool = False
    """Report the KL to the initial model (`loss/kl`) even where no loss reads it; needs a reference."""
    verify_push_every: int = 10
    """Pushes from one to the next after which engines and trainer must agree on what the engines sample: the
    first is verified, and the run stops where they do not. 0: none is."""
    max_mismatch: float | None = None
    """Mean difference of their log-probs that is still agreement, in nats; null: what rounding explains, by
    model.engine_dtype, model.dtype and model.autocast."""


@dataclass
class CheckpointConfig:
    every: int = 1
    """Iterations between checkpoints; 0: only at the end."""
    keep_last: int = 2
    """At least 2, so that one that was damaged is not the only one."""
    keep_best: bool = True
    """Besides, keep the one with the best greedy accuracy."""
    strict: bool = False
    """Refuse to resume from an older checkpoint where the newest is damaged."""


@dataclass
class LoggerConfig:
    wandb: WandbMode = WandbMode.disabled
    project: str = "expert-iteration"
    """wandb's, like the next two."""
    group: str | None = None
    """null: the name of the sweep's folder, if the run is part of one."""
    name: str | None = None
    """null: that of the run's folder. In a sweep, the number of the job is put behind it."""
    tensorboard: bool = False
    rollout_rows: int = 20
    """Rollouts of each iteration that are shown to wandb and TensorBoard, drawn at random."""
    report: bool = True
    """Whether a run that finishes writes report.html."""
    tokens: bool = True
    """Whether rollouts are written down with the id and log-prob of each token, about 12 bytes a token."""


@dataclass
class RayConfig:
    address: str | None = None
    """Of the cluster to join, as HOST:PORT; auto: the one that this machine is a node of; null: a private
    instance on this machine."""
    max_restarts: int = 3
    """How often parts that died are started again in one session of a run; then it ends with exit code 3."""


@dataclass
class RunConfig:
    """One run. README.md explains every word."""

    seed: int = 0
    iterations: int = MISSING
    prompts_per_iteration: int = MISSING
    rollouts_per_prompt: int = MISSING
    epochs: int = 1
    """Average uses of a kept sample."""
    batch_size: int = MISSING
    """Sequences per optimizer step, over all ranks."""
    micro_batch_tokens: int = MISSING
    """Token budget of one forward on one device, padding included."""
    runtime: Runtime = Runtime.ray
    """`local` runs everything in this process (sync only): for tests and for pdb."""
    resume: str | None = None
    """Run folder to go on in."""
    recover: bool = True
    """Go back to the last checkpoint by itself when a trainer or the buffer dies."""
    wait_limit: float = 600.0
    """Seconds that a stage may be silent before the run stops and names it."""
    mode: ModeConfig = field(default_factory=ModeConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    data: DataConfig = field(default_factory=DataConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    values: ValuesConfig = field(default_factory=ValuesConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    rationalisation: RationalisationConfig = field(default_factory=RationalisationConfig)
    grading: GradingConfig = field(default_factory=GradingConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    adaptive: AdaptiveConfig = field(default_factory=AdaptiveConfig)
    buffer: BufferConfig = field(default_factory=BufferConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    push: PushConfig = field(default_factory=PushConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    ray: RayConfig = field(default_factory=RayConfig)


def register_schema() -> None:
    """Make `RunConfig` the schema that config/train.yaml starts from."""
    ConfigStore.instance().store(name="schema", node=RunConfig)


def to_plain(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values, enums by name: for logs and checkpoints."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True))


class Member(NamedTuple):
    """One dataset of a task."""

    key: str
    """Of its section: `task`, or `task.members.NAME`."""
    name: str
    dataset: DatasetConfig


def members_of(task: TaskConfig) -> list[Member]:
    """The datasets of a task: itself, or the members of a mixture."""
    if task.name == MIXTURE:
        return [Member(f"task.members.{name}", name, dataset) for name, dataset in task.members.items()]
    return [Member("task", task.name, task)]
