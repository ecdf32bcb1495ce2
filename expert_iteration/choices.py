"""The words that a configuration may use where it has a choice."""

from enum import Enum


class Runtime(Enum):
    ray = "ray"
    local = "local"


class Device(Enum):
    cpu = "cpu"
    cuda = "cuda"


class Normalization(Enum):
    token = "token"
    sequence = "sequence"
    constant = "constant"


class PromptStrategy(Enum):
    uniform = "uniform"
    """Shuffled passes over all prompts."""
    frontier = "frontier"
    """Those that can teach, by the ledger; see frontier.py."""


class Start(Enum):
    last = "last"
    initial = "initial"


class KLEstimator(Enum):
    k2 = "k2"
    k3 = "k3"


class Schedule(Enum):
    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class KLSchedule(Enum):
    constant = "constant"
    linear = "linear"
    """From the coefficient to 0 over the optimizer steps of the run."""


class Strategy(Enum):
    top_k = "top_k"
    random = "random"
    compat_torchrl = "compat_torchrl"
    """What TorchRL's TopKRewardSelector keeps: rewards above the lower median of the group."""


class Prefer(Enum):
    first = "first"
    """Whichever a lot, drawn from the seed, puts first."""
    shortest = "shortest"
    most_likely = "most_likely"
    """Highest mean log-prob of its tokens, when it was sampled."""
    most_diverse = "most_diverse"
    """Farthest from those chosen before, by their runs of tokens."""


class Duplicates(Enum):
    keep = "keep"
    """None: all are kept."""
    text = "text"
    """The same but for white space and case."""
    equations = "equations"
    """The same computations in the same order."""


class Sampler(Enum):
    without_replacement = "without_replacement"
    uniform = "uniform"
    prioritized = "prioritized"


class Priority(Enum):
    """What makes a sample worth reading more often."""

    reward = "reward"
    difficulty = "difficulty"
    """1 - pass rate of its group."""
    recency = "recency"
    """1 / (1 + age in policy versions)."""


class OnCollapse(Enum):
    warn = "warn"
    stop = "stop"
    raise_temperature = "raise_temperature"


class Dtype(Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"


class Sharding(Enum):
    """Of the trained weights, their gradients and moments."""

    none = "none"
    """Every rank holds all of them."""
    full = "full"
    """Every rank holds its part, and weights come together layer by layer where they are needed (FSDP)."""


class WandbMode(Enum):
    disabled = "disabled"
    offline = "offline"
    online = "online"


class OnBadRow(Enum):
    drop = "drop"
    fail = "fail"


class EngineKind(Enum):
    in_process = "in_process"
    """vLLM in the collector's own process."""
    own_process = "own_process"
    """vLLM's core in a process of its own, which schedules and computes while the collector does the rest."""


class PushBackend(Enum):
    """How trained weights reach the engines."""

    host = "host"
    """Through host memory; anywhere."""
    nccl = "nccl"
    """From GPU to GPU."""
    ipc = "ipc"
    """Through the memory of a GPU that trainer and engine share."""


class PushGroups(Enum):
    one = "one"
    """All engines receive what is sent once."""
    per_replica = "per_replica"
    """Each engine is connected by itself: a restart concerns that one alone, but all is sent to each."""


class PushPause(Enum):
    """What becomes of answers that are under way when a push begins."""

    wait = "wait"
    """They are finished first, with the old weights."""
    abort = "abort"
    """They are given up, and ordered again from scratch with the new weights."""
    keep = "keep"
    """They go on with the new weights, and carry both versions."""
