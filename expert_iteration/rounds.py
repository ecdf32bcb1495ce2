"""Which answers an evaluation asks for: a round is one answer to every question."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from expert_iteration.config import EvalConfig, RunConfig

MOST_SAMPLES = 4096
SPREAD = 2_654_435_769
"""2**32 over the golden ratio: multiples of it, taken modulo 2**31, lie far apart."""


@dataclass(frozen=True, slots=True)
class Round:
    """One answer to each question."""

    temperature: float
    """0: greedy."""
    seed: int
    """One of eval.seeds."""
    sample: int
    """0 .. eval.samples - 1."""

    @property
    def engine_seed(self) -> int:
        """Of the answer to question 0; question i adds i. In [0, 2^31), and 0 for sample 0 of seed 0."""
        return (self.seed * MOST_SAMPLES + self.sample) * SPREAD % 2**31


GREEDY = Round(0.0, 0, 0)


def temperatures_of(config: RunConfig) -> list[float]:
    """Of the sampled answers; the first is the one that metrics belong to which name none."""
    chosen = config.eval.temperatures
    return [config.sampling.temperature] if chosen is None else list(chosen)


def sampled_rounds(config: RunConfig, temperature: float) -> list[Round]:
    """Those at one temperature, seed by seed."""
    asked = config.eval
    return [Round(temperature, seed, sample) for seed in asked.seeds for sample in range(asked.samples)]


def rounds_of(config: RunConfig) -> list[Round]:
    """All of an evaluation: the greedy one, and those at each temperature."""
    sampled = [each for one in temperatures_of(config) for each in sampled_rounds(config, one)]
    return list(dict.fromkeys([GREEDY, *sampled]))


def ks_of(asked: EvalConfig) -> list[int]:
    """k of pass@k and maj@k, ascending; 1 is always among them."""
    chosen = [asked.samples] if asked.ks is None else asked.ks
    return sorted({1, *chosen})


def round_minima(asked: EvalConfig) -> list[tuple[str, float | None, float]]:
    """(key, value, smallest value that makes sense)."""
    return [
        ("eval.samples", asked.samples, 1),
        *(("eval.ks", k, 1) for k in asked.ks or ()),
        *(("eval.temperatures", temperature, 0) for temperature in asked.temperatures or ()),
        *(("eval.seeds", seed, 0) for seed in asked.seeds),
    ]


def round_problems(config: RunConfig) -> Iterator[str]:
    """One line for each combination that cannot work: keys, values and the remedy."""
    asked = config.eval
    if asked.samples > MOST_SAMPLES:
        yield f"eval.samples ({asked.samples}) exceeds {MOST_SAMPLES}; ask for fewer, with more eval.seeds."
    if (largest := max(ks_of(asked))) > asked.samples:
        yield (
            f"eval.ks ({largest}) exceeds eval.samples ({asked.samples}): pass@{largest} needs as many "
            "answers to a question; raise the latter or leave it out."
        )
    for key, values in (("eval.seeds", asked.seeds), ("eval.temperatures", temperatures_of(config))):
        if not values or len(set(values)) < len(values):
            yield f"{key} ({_listed(values)}) must hold at least one number, and each once."
    if 0 in temperatures_of(config) and asked.samples * len(asked.seeds) > 1:
        yield (
            f"eval.samples ({asked.samples}) of eval.seeds ({_listed(asked.seeds)}) are one and the same at "
            "temperature 0, and a greedy answer is asked for anyway; take 0 out of eval.temperatures, or "
            "raise sampling.temperature."
        )


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "none"
