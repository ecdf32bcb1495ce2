"""Every method is a row and a yaml, and a new one takes nothing else."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from hydra import compose, initialize_config_dir
from tensordict import TensorDict

from expert_iteration import algorithms
from expert_iteration.advantages import advantages
from expert_iteration.algorithms import (
    ALGORITHMS,
    Algorithm,
    algorithm_of,
    needs_reference,
    needs_values,
    objective_of,
)
from expert_iteration.batching import ADVANTAGE, POLICY_VERSION, RESPONSE, SAMPLED, TOKENS
from expert_iteration.checks import from_hydra
from expert_iteration.config import (
    AlgorithmConfig,
    ConfigError,
    ModelConfig,
    RunConfig,
)
from expert_iteration.launch import config_folder, register
from expert_iteration.learner import Learner
from expert_iteration.selection import Candidate, Fate, select
from expert_iteration.tokenizer import load_tokenizer, resolve_model
from expert_iteration.types import Finish, Group, Outcome, Prompt, Rollout, Ticket, Verdict

README = Path(__file__).parents[1] / "README.md"
READS_REFERENCE = {"minor_sft/minor_sft", "a_star_po/regression"}
READS_VALUES = {"a_star_po/regression"}


def variants() -> list[tuple[str, str]]:
    return [(name, variant) for name, row in ALGORITHMS.items() for variant in row.objectives]


def run_config(name: str, variant: str | None = None) -> RunConfig:
    return RunConfig(algorithm=AlgorithmConfig(name=name, variant=variant))


def composed(*overrides: str) -> RunConfig:
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return from_hydra(compose("train", overrides=list(overrides)))


def readme_blocks(heading: str) -> list[str]:
    """The indented blocks of a section."""
    section = README.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [
        dedent(block).strip() for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", section, re.MULTILINE)
    ]


@pytest.fixture
def new_method(tmp_path: Path) -> Iterator[str]:
    """The method that the README adds, by the two blocks of text it shows; gone after the test."""
    row, yaml = readme_blocks("Adding an algorithm")
    [(name, algorithm)] = eval(f"{{{row}}}", vars(algorithms)).items()
    assert isinstance(algorithm, Algorithm) and name not in ALGORITHMS
    (tmp_path / "algorithm").mkdir()
    (tmp_path / "algorithm" / f"{name}.yaml").write_text(yaml, encoding="utf-8")
    ALGORITHMS[name] = algorithm
    yield name
    del ALGORITHMS[name]


def test_every_row_has_a_yaml_and_every_yaml_a_row() -> None:
    files = {file.stem for file in (config_folder() / "algorithm").glob("*.yaml")}
    assert files == set(ALGORITHMS)
    assert {composed(f"algorithm={name}").algorithm.name for name in files} == files


def test_the_readme_lists_every_row() -> None:
    section = README.read_text(encoding="utf-8").split("\n## Algorithms\n")[1].split("\n### ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(ALGORITHMS)
    chosen = [variant for name, variant in variants() if len(ALGORITHMS[name].objectives) > 1]
    assert all(f"`{variant}`" in section for variant in chosen)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_first_variant_is_the_default_and_an_unknown_one_is_refused_with_names(name: str) -> None:
    offered = ALGORITHMS[name].objectives
    assert objective_of(run_config(name)) == next(iter(offered.values()))
    with pytest.raises(ConfigError) as refusal:
        objective_of(run_config(name, "magic"))
    for word in ("algorithm.variant (magic)", f"algorithm.name={name}", *offered):
        assert word in str(refusal.value)


def test_an_unknown_algorithm_is_refused_with_names() -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.name \(magic\) .*grpo"):
        algorithm_of(run_config("magic"))


@pytest.mark.parametrize(("name", "variant"), variants())
def test_what_a_variant_reads_besides_its_answers(name: str, variant: str) -> None:
    config = run_config(name, variant)
    assert needs_reference(config) == (f"{name}/{variant}" in READS_REFERENCE)
    assert needs_values(config) == (f"{name}/{variant}" in READS_VALUES)
    config.loss.kl_coefficient = 0.1
    assert needs_reference(config)
    config.loss.kl_coefficient, config.health.measure_kl = 0.0, True
    assert needs_reference(config)


def test_the_method_of_the_readme_composes(new_method: str, tmp_path: Path) -> None:
    config = composed(f"hydra.searchpath=[file://{tmp_path}]", f"algorithm={new_method}")
    assert config.algorithm.name == new_method
    assert config.selection.top_k is None


def test_the_method_of_the_readme_selects_what_its_row_says(new_method: str) -> None:
    """Keep.ALL: right and wrong, also where a group is all wrong."""
    config, keep = composed("selection.top_k=null", "selection.duplicates=keep"), ALGORITHMS[new_method].keep
    right, wrong = (Candidate(0, i, float(i == 0), success=i == 0, fingerprint=7) for i in range(2))
    for group in ([right, wrong], [replace(right, reward=0.0, success=False), wrong]):
        fates = select(group, config.selection, seed=0, keep=keep)
        assert set(fates.values()) == {Fate.KEPT}


def test_the_method_of_the_readme_learns(new_method: str, tiny_model: Path) -> None:
    """A step makes the right answer likelier relative to the wrong one."""
    config = replace(
        run_config(new_method), micro_batch_tokens=10_000, model=ModelConfig(path=str(tiny_model))
    )
    config.optimizer.learning_rate = 1e-3
    right, wrong = answers(new_method)
    learner = Learner(config)
    before = log_prob(learner, right) - log_prob(learner, wrong)
    metrics = learner.learn([right, wrong], progress=0.0)
    assert metrics["train/skipped"] == 0
    assert log_prob(learner, right) - log_prob(learner, wrong) > before


def answers(name: str) -> list[TensorDict]:
    """A right and a wrong answer to one prompt, with the advantages of the method `name`."""
    objective = objective_of(run_config(name))
    ticket = Ticket(0, 1, Prompt(0, "q", "1", "q", (1,), "boxed"))
    rollouts = tuple(Rollout(i, (), (), "", Finish.STOP, 0, 0) for i in range(2))
    verdicts = (Verdict(Outcome.CORRECT, ""), Verdict(Outcome.WRONG, ""))
    earned = advantages(
        Group(ticket, rollouts, verdicts, (1.0, 0.0)), objective.advantage, normalize_std=True
    )
    return [row_of(tokens, earned[i]) for i, tokens in enumerate(([9, 8, 70, 71, 72], [9, 8, 80, 81, 82]))]


def row_of(tokens: list[int], advantage: float) -> TensorDict:
    """A prompt of two tokens and a response."""
    return TensorDict(
        {
            TOKENS: torch.tensor(tokens),
            RESPONSE: torch.arange(len(tokens)) >= 2,
            SAMPLED: torch.zeros(len(tokens)),
            ADVANTAGE: torch.tensor(advantage),
            POLICY_VERSION: torch.tensor(0),
        }
    )


def log_prob(learner: Learner, row: TensorDict) -> float:
    """Of the response."""
    with torch.no_grad():
        logprobs_TV = learner.policy.model(row[TOKENS][None]).logits[0].log_softmax(-1)
    said_T = logprobs_TV[:-1].gather(-1, row[TOKENS][1:, None]).squeeze(-1)
    return float(said_T[row[RESPONSE][1:]].sum())


def test_a_run_goes_on_from_the_model_that_another_one_saved(tiny_model: Path, tmp_path: Path) -> None:
    """`model.path=<run>/checkpoints/<step>/model`, with another method."""
    first = replace(
        run_config("expert_iteration"), micro_batch_tokens=10_000, model=ModelConfig(path=str(tiny_model))
    )
    first.optimizer.learning_rate = 1e-3
    taught = Learner(first)
    start = {name: value.clone() for name, value in taught.policy.named_weights()}
    taught.learn([row_of([9, 8, 70, 71, 72], advantage=1.0)], progress=0.0)
    taught.save(tmp_path)
    second = replace(
        first, algorithm=AlgorithmConfig(name="grpo"), model=ModelConfig(str(tmp_path / "model"))
    )
    inherited = dict(Learner(second).policy.named_weights())
    assert all(torch.equal(value, inherited[name]) for name, value in taught.policy.named_weights())
    assert any(not torch.equal(value, start[name]) for name, value in inherited.items())
    ids = [load_tokenizer(resolve_model(config).model).encode("2+2=4") for config in (first, second)]
    assert ids[0] == ids[1]
