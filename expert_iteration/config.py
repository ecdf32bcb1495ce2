"""The configuration, checked once at the door.

The dataclasses are the schemas of the yaml tree under ``config/``: Hydra refuses unknown keys and
wrong types against them. `from_hydra` turns a composed config into a `RunConfig` and refuses
combinations that cannot work, before anything heavy is imported.
"""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


class ConfigError(ValueError):
    """The user's configuration cannot work. The message names the keys, the values and the remedy."""


class Runtime(Enum):
    ray = "ray"
    local = "local"


class Device(Enum):
    cpu = "cpu"
    cuda = "cuda"


class Normalization(Enum):
    token = "token"
    sequence = "sequence"


class KLEstimator(Enum):
    k2 = "k2"
    k3 = "k3"


class Schedule(Enum):
    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class Strategy(Enum):
    top_k = "top_k"
    random = "random"


class Sampler(Enum):
    without_replacement = "without_replacement"
    uniform = "uniform"
    prioritized = "prioritized"


class Dtype(Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"


class WandbMode(Enum):
    disabled = "disabled"
    offline = "offline"
    online = "online"


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
class TaskConfig:
    """Where questions come from, how they are asked and how answers are judged."""

    name: str = MISSING
    path: str | None = None
    """Folder with the JSONL files; null: the hub."""
    hub_id: str | None = None
    hub_config: str | None = None
    hub_revision: str | None = None
    train: str = "train"
    """Split on the hub, or file name without suffix under `path`."""
    evaluation: str = "test"
    limit: int | None = None
    """Use only the first rows of the training set."""
    template: str = MISSING
    """A file of expert_iteration/templates, without suffix."""
    chat: bool = False
    """Wrap the rendered template in the tokenizer's chat template."""
    prefix: str = ""
    """Text put in the mouth of the assistant: the response continues it."""
    style: str = MISSING
    """Answer format the grader expects: r1_zero, boxed, gsm8k or answer_tag."""
    stop: list[str] = field(default_factory=list)
    max_tokens: int = MISSING


@dataclass
class AlgorithmConfig:
    name: str = MISSING
    """A row of expert_iteration/algorithms.py."""


@dataclass
class SamplingConfig:
    """How rollouts are sampled. top_p and top_k stay off: they would bias the log-probs."""

    temperature: float = 1.0
    min_tokens: int = 4
    max_tokens: int = MISSING


@dataclass
class GradingConfig:
    workers: int = 2
    """Killable math-verify processes per collector; started when the first answer needs them."""
    deadline: float = 5.0
    """Seconds before a verdict is `timeout`."""


@dataclass
class SelectionConfig:
    strategy: Strategy = Strategy.top_k
    top_k: int | None = None
    """Kept per prompt; null: all that may be kept."""
    min_reward: float | None = None
    """null: only successful answers may be kept; a number lowers the gate by hand."""
    deduplicate: bool = True
    """Drop answers of one group with the same normalised text."""


@dataclass
class LossConfig:
    normalization: Normalization = Normalization.token
    kl_coefficient: float = 0.0
    kl_estimator: KLEstimator = KLEstimator.k3


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


@dataclass
class BufferConfig:
    sampler: Sampler = Sampler.without_replacement
    capacity: int = 1_000_000
    priority_alpha: float = 0.8
    priority_beta: float = 0.4


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


@dataclass
class TrainPlacement:
    devices: int = 1
    """Trainer ranks, one device each."""
    threads: int = 1
    """CPU threads of each rank."""


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


@dataclass
class ReferencePlacement:
    devices: int = 1


@dataclass
class PlacementConfig:
    device: Device = Device.cpu
    shared: bool = False
    """Trainer, engine and reference share one GPU."""
    train: TrainPlacement = field(default_factory=TrainPlacement)
    infer: InferPlacement = field(default_factory=InferPlacement)
    reference: ReferencePlacement = field(default_factory=ReferencePlacement)


@dataclass
class EvalConfig:
    every: int = 1
    """Iterations between evaluations; 0: only at start and end."""
    limit: int | None = 300
    """Questions of the evaluation set that are used; null: all."""
    seed: int = 0
    """Of the sampled pass@1; the same questions and seeds in every evaluation."""


@dataclass
class CheckpointConfig:
    every: int = 1
    """Iterations between checkpoints; 0: only at the end."""
    keep_last: int = 2


@dataclass
class LoggerConfig:
    wandb: WandbMode = WandbMode.disabled
    project: str = "expert-iteration"
    group: str | None = None
    name: str | None = None


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
    wait_limit: float = 600.0
    """Seconds that a stage may be silent before the run stops and names it."""
    mode: ModeConfig = field(default_factory=ModeConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    grading: GradingConfig = field(default_factory=GradingConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    buffer: BufferConfig = field(default_factory=BufferConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


def register_schema() -> None:
    """Make `RunConfig` the schema that config/train.yaml starts from."""
    ConfigStore.instance().store(name="schema", node=RunConfig)


def from_hydra(composed: DictConfig) -> RunConfig:
    """Turn a composed config into a checked `RunConfig`.

    Raises:
        ConfigError: a value is missing, has the wrong type, or a combination cannot work.
    """
    try:
        config = cast(RunConfig, OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    check(config)
    return config


def to_plain(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values, enums by name: for logs and checkpoints."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True))


def check(config: RunConfig) -> None:
    """Refuse what cannot work, before any model is loaded.

    Raises:
        ConfigError: naming the keys, their values and the remedy.
    """
    for key, value, low in _minima(config):
        if value is not None and value < low:
            raise ConfigError(f"{key} ({value}) must be at least {low}.")
    for problem in (*_batch_problems(config), *_mode_problems(config), *_placement_problems(config)):
        raise ConfigError(problem)


def _minima(config: RunConfig) -> list[tuple[str, float | None, float]]:
    """(key, value, smallest value that makes sense)."""
    return [
        ("seed", config.seed, 0),
        ("iterations", config.iterations, 1),
        ("prompts_per_iteration", config.prompts_per_iteration, 1),
        ("rollouts_per_prompt", config.rollouts_per_prompt, 1),
        ("epochs", config.epochs, 1),
        ("batch_size", config.batch_size, 1),
        ("micro_batch_tokens", config.micro_batch_tokens, 1),
        ("mode.max_staleness", config.mode.max_staleness, 0),
        ("mode.publish_every", config.mode.publish_every, 1),
        ("mode.min_buffer", config.mode.min_buffer, 1),
        ("mode.prompts_per_request", config.mode.prompts_per_request, 1),
        ("task.limit", config.task.limit, 1),
        ("task.max_tokens", config.task.max_tokens, 1),
        ("sampling.temperature", config.sampling.temperature, 0),
        ("sampling.min_tokens", config.sampling.min_tokens, 0),
        ("sampling.max_tokens", config.sampling.max_tokens, 1),
        ("grading.workers", config.grading.workers, 1),
        ("grading.deadline", config.grading.deadline, 0.1),
        ("selection.top_k", config.selection.top_k, 1),
        ("loss.kl_coefficient", config.loss.kl_coefficient, 0),
        ("optimizer.learning_rate", config.optimizer.learning_rate, 0),
        ("optimizer.warmup_steps", config.optimizer.warmup_steps, 0),
        ("buffer.capacity", config.buffer.capacity, 1),
        ("placement.train.devices", config.placement.train.devices, 1),
        ("placement.infer.replicas", config.placement.infer.replicas, 1),
        ("placement.infer.tensor_parallel", config.placement.infer.tensor_parallel, 1),
        ("placement.reference.devices", config.placement.reference.devices, 1),
        ("eval.every", config.eval.every, 0),
        ("eval.limit", config.eval.limit, 1),
        ("checkpoint.every", config.checkpoint.every, 0),
        ("checkpoint.keep_last", config.checkpoint.keep_last, 1),
    ]


def most_kept(config: RunConfig) -> int:
    """Upper bound of the samples one iteration can keep."""
    per_prompt = config.selection.top_k or config.rollouts_per_prompt
    return config.prompts_per_iteration * min(per_prompt, config.rollouts_per_prompt)


def _batch_problems(config: RunConfig) -> list[str]:
    top_k, rollouts = config.selection.top_k, config.rollouts_per_prompt
    found = []
    if top_k is not None and top_k > rollouts:
        found.append(
            f"selection.top_k ({top_k}) exceeds rollouts_per_prompt ({rollouts}); "
            "raise the latter or keep fewer."
        )
    if config.batch_size > most_kept(config):
        found.append(
            f"batch_size ({config.batch_size}) exceeds what one iteration can keep ({most_kept(config)} = "
            f"prompts_per_iteration {config.prompts_per_iteration} x at most {top_k or rollouts} each); "
            "lower batch_size or collect more."
        )
    if config.batch_size < config.placement.train.devices:
        found.append(
            f"batch_size ({config.batch_size}) is below placement.train.devices "
            f"({config.placement.train.devices}); every rank needs a sequence: raise batch_size."
        )
    if config.buffer.capacity < most_kept(config):
        found.append(
            f"buffer.capacity ({config.buffer.capacity}) is below what one iteration can keep "
            f"({most_kept(config)}); raise it, or samples would be overwritten unread."
        )
    if config.sampling.min_tokens > config.sampling.max_tokens:
        found.append(
            f"sampling.min_tokens ({config.sampling.min_tokens}) exceeds sampling.max_tokens "
            f"({config.sampling.max_tokens}); lower the former."
        )
    if config.sampling.max_tokens >= config.model.max_length:
        found.append(
            f"sampling.max_tokens ({config.sampling.max_tokens}) leaves no room for a prompt in "
            f"model.max_length ({config.model.max_length}); lower the former or raise the latter."
        )
    return found


def _mode_problems(config: RunConfig) -> list[str]:
    mode, found = config.mode, []
    if mode.max_staleness == 0 and mode.publish_every is not None:
        found.append(
            f"mode.publish_every ({mode.publish_every}) needs mode.max_staleness of at least 1 (it is 0): a push "
            "in the middle of an iteration makes its other samples stale. Use mode=async, or publish_every=null."
        )
    if mode.max_staleness > 0 and mode.publish_every is None:
        found.append(
            f"mode.max_staleness ({mode.max_staleness}) needs mode.publish_every (it is null): say after how "
            "many optimizer steps new weights are pushed."
        )
    if config.runtime is Runtime.local and mode.max_staleness > 0:
        found.append(
            f"runtime=local is synchronous only, but mode.max_staleness is {mode.max_staleness}; "
            "use mode=sync or placement=cpu."
        )
    return found


def _placement_problems(config: RunConfig) -> list[str]:
    placement, found = config.placement, []
    ranks = {
        "placement.train.devices": placement.train.devices,
        "placement.infer.replicas": placement.infer.replicas,
        "placement.reference.devices": placement.reference.devices,
    }
    for key, count in ranks.items():
        if config.runtime is Runtime.local and count > 1:
            found.append(f"{key} ({count}) needs processes, but runtime is local; use placement=cpu.")
        if placement.shared and count > 1:
            found.append(f"{key} ({count}) cannot share one GPU; use placement=split.")
    if placement.shared and placement.infer.tensor_parallel > 1:
        found.append(
            f"placement.infer.tensor_parallel ({placement.infer.tensor_parallel}) needs as many GPUs, but "
            "placement.shared is true; use placement=split."
        )
    if placement.device is Device.cuda and (needed := gpus_needed(config)) > (there := gpus_here()):
        found.append(
            f"placement needs {needed} GPUs (train {placement.train.devices}, infer "
            f"{placement.infer.replicas} x {placement.infer.tensor_parallel}, reference "
            f"{placement.reference.devices if needs_reference(config) else 0}), but this machine has {there}; "
            "lower them, or use placement=one_gpu or placement=cpu."
        )
    return found


def needs_reference(config: RunConfig) -> bool:
    """Whether any loss term reads reference log-probs."""
    return config.loss.kl_coefficient > 0


def gpus_needed(config: RunConfig) -> int:
    placement = config.placement
    if placement.device is Device.cpu:
        return 0
    if placement.shared:
        return 1
    engines = placement.infer.replicas * placement.infer.tensor_parallel
    return placement.train.devices + engines + needs_reference(config) * placement.reference.devices


def gpus_here() -> int:
    """NVIDIA GPUs of this machine, counted without loading torch."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
