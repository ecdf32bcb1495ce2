"""Every yaml composes, every key has a reader, and what cannot work is refused at the door."""

import ast
import re
import shlex
from dataclasses import fields, is_dataclass
from itertools import combinations, product
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from expert_iteration.checks import from_hydra
from expert_iteration.config import ConfigError, RunConfig, to_plain
from expert_iteration.launch import config_folder, register
from expert_iteration.training import laws_of

PACKAGE = Path(__file__).parents[1] / "expert_iteration"
SYNCHRONOUS_ONLY = ("rest_em", "star")
GROUPS = ("mode", "task", "algorithm", "selection", "model", "placement", "logger")


def composed(*overrides: str, gpus: int | None = None) -> RunConfig:
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return from_hydra(compose("train", overrides=list(overrides)), gpus)


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (config_folder() / group).glob("*.yaml"))


def on_this_machine(*overrides: str) -> RunConfig:
    """Composed as if this machine had as many GPUs as it takes."""
    return composed(*overrides, gpus=64)


def test_no_argument_is_the_demo():
    assert to_plain(composed()) == to_plain(composed("experiment=demo"))
    assert composed().task.name == "demo"


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes_and_has_laws(experiment):
    laws_of(on_this_machine(f"experiment={experiment}"))


SWEEPS = ("rollout_grid", "lr_sweep", "single_vs_multi_trace", "multi_epoch", "topk_sweep", "kl_sweep")


def swept(experiment: str) -> list[str]:
    """What `-m` makes of an experiment: `key=a,b` for each key that it sweeps."""
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        composed = compose("train", overrides=[f"experiment={experiment}"], return_hydra_config=True)
    return [f"{key}={values}" for key, values in (composed.hydra.sweeper.params or {}).items()]


def jobs(*overrides: str) -> list[tuple[str, ...]]:
    """The runs of a sweep, by their overrides."""
    choices = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [one.input_line or ""]
        for one in OverridesParser.create().parse_overrides(list(overrides))
    ]
    return list(product(*choices))


def written_commands() -> list[str]:
    """Overrides of each `python scripts/train.py` in the README and in the experiments."""
    root = PACKAGE.parent
    files = [
        root / "README.md",
        *(root / "docs").glob("*.md"),
        *(config_folder() / "experiment").glob("*.yaml"),
    ]
    found = [
        re.findall(r"^(?:#  | ) +python scripts/train\.py(.*)$", file.read_text(), re.M) for file in files
    ]
    return sorted({command.strip() for commands in found for command in commands})


@pytest.mark.parametrize("experiment", SWEEPS)
def test_every_run_of_a_sweep_composes_and_differs_from_the_others(experiment):
    runs = [composed(f"experiment={experiment}", *job) for job in jobs(*swept(experiment))]
    for config in runs:
        laws_of(config)
    plain = [to_plain(config) for config in runs]
    assert len(plain) > 1
    assert all(one != other for one, other in combinations(plain, 2))


def test_no_other_experiment_sweeps():
    assert {name for name in options("experiment") if swept(name)} == set(SWEEPS)


@pytest.mark.parametrize("command", written_commands())
def test_every_command_in_the_readme_and_in_an_experiment_composes(command):
    for job in jobs(*(word for word in shlex.split(command) if word != "-m")):
        laws_of(on_this_machine(*job))


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_of_every_group_composes(group):
    for option in options(group):
        laws_of(on_this_machine(f"{group}={option}"))


def test_tasks_algorithms_and_selections_combine():
    """Every pair of them at least once: along the diagonals each selection meets each task and algorithm."""
    selections = options("selection")
    for (i, algorithm), (j, task) in product(enumerate(options("algorithm")), enumerate(options("task"))):
        selection = selections[(i + j) % len(selections)]
        laws_of(on_this_machine(f"algorithm={algorithm}", f"task={task}", f"selection={selection}"))


def test_asynchronous_mode_combines_with_every_method_that_has_it():
    for algorithm in set(options("algorithm")) - set(SYNCHRONOUS_ONLY):
        laws_of(on_this_machine("mode=async", f"algorithm={algorithm}"))


@pytest.mark.parametrize("algorithm", SYNCHRONOUS_ONLY)
def test_methods_that_train_anew_in_each_iteration_are_refused_in_asynchronous_mode(algorithm):
    with pytest.raises(ConfigError, match=r"algorithm\.start=initial .* use mode=sync"):
        composed("mode=async", f"algorithm={algorithm}")


def test_a_selection_named_on_the_command_line_wins_over_the_algorithm():
    assert composed("algorithm=expert_iteration").selection.top_k == 2
    assert composed("algorithm=expert_iteration", "selection=random").selection.top_k == 1
    assert composed("algorithm=rejection").selection.top_k is None


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["selection.top_k=9"], ["selection.top_k (9)", "rollouts_per_prompt (4)"]),
        (["sampling.at_once=5"], ["sampling.at_once (5)", "rollouts_per_prompt (4)"]),
        (["sampling.at_once=1", "selection=random"], ["sampling.at_once (1)", "set it to null"]),
        (["sampling.at_once=1", "algorithm=grpo"], ["sampling.at_once (1)", "set it to null"]),
        (["sampling.at_once=0"], ["sampling.at_once (0)", "at least 1"]),
        (["batch_size=5000"], ["batch_size (5000)", "2048", "collect more"]),
        (["prompts_per_iteration=0"], ["prompts_per_iteration (0)", "at least 1"]),
        (["values.beta=inf"], ["values.beta (inf)", "a finite number"]),
        (["optimizer.learning_rate=nan"], ["optimizer.learning_rate (nan)", "a finite number"]),
        (["sampling.max_tokens=4000"], ["sampling.max_tokens (4000)", "model.max_length (2048)"]),
        (["sampling.min_tokens=90"], ["sampling.min_tokens (90)", "sampling.max_tokens (48)"]),
        (["buffer.capacity=10"], ["buffer.capacity (10)", "2048"]),
        (["mode.publish_every=4"], ["mode.publish_every (4)", "mode.max_staleness", "mode=async"]),
        (["mode.max_staleness=1"], ["mode.max_staleness (1)", "mode.publish_every"]),
        (["mode=async", "mode.publish_every=1"], ["mode.publish_every (1)", "prompts_per_request"]),
        (["mode=async", "runtime=local"], ["runtime=local", "mode=sync"]),
        (
            ["placement=local", "placement.infer.replicas=2"],
            ["placement.infer.replicas (2)", "placement=cpu"],
        ),
        (["placement.train.devices=32"], ["batch_size (16)", "placement.train.devices (32)"]),
        (["placement=one_gpu", "placement.train.devices=2"], ["placement.train.devices (2)", "split"]),
        (["placement.nodes=2"], ["placement.nodes (2)", "ray.address is null", "placement=cluster"]),
        (["placement.train.threads=0"], ["placement.train.threads (0)", "at least 1"]),
        (["placement=split", "placement.infer.replicas=4096"], ["GPUs", "4096 x 1", "placement=cpu"]),
        (
            ["placement=local", "placement.train.sharding=full"],
            ["placement.train.sharding=full", "runtime is local", "placement=cpu"],
        ),
        (["placement.train.cpu_offload=true"], ["placement.train.cpu_offload", "placement.train.sharding"]),
        (["model.lora.rank=-1"], ["model.lora.rank (-1)", "at least 0"]),
        (["model.lora.alpha=0"], ["model.lora.alpha (0)", "at least 1"]),
        (["algorithm.name=magic"], ["algorithm.name (magic)", "expert_iteration"]),
        (["task.name=quiz"], ["task.name (quiz)", "gsm8k"]),
        (["task.name=mixture"], ["task.name (mixture)", "task.members (none)"]),
        (["task=gsm8k_math", "task.name=gsm8k"], ["task.members (gsm8k, math)", "'mixture'"]),
        (["task=gsm8k_math", "task.path=data"], ["task.path", "task.members.gsm8k.path"]),
        (["task=gsm8k_math", "task.limit=9"], ["task.limit", "task.members.gsm8k.limit"]),
        (["task=gsm8k_math", "task.members.math.weight=0"], ["task.members.math.weight (0)", "above 0"]),
        (["task=gsm8k_math", "task.members.math.limit=0"], ["task.members.math.limit (0)", "at least 1"]),
        (["task=gsm8k", "task.held_out=1"], ["task.held_out (1)", "between 0 and 1"]),
        (["task.prompt.style=poem"], ["task.prompt.style (poem)", "r1_zero", "ifeval"]),
        (["task.prompt.template=''"], ["task.prompt.template is empty", "task/prompt=r1_zero"]),
        (["task=gsm8k", "task.prompt.system=Hello"], ["task.prompt.system", "task.prompt.chat=true"]),
        (["task.prompt.stop=['']"], ["task.prompt.stop", "empty string"]),
        (["task=ifeval", "task.prompt.few_shot=a.jsonl"], ["task.prompt.few_shot", "ifeval"]),
    ],
)
def test_what_cannot_work_is_refused_with_keys_and_remedy(overrides, words):
    with pytest.raises(ConfigError) as refusal:
        laws_of(composed(*overrides))
    message = str(refusal.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_gpus_of_a_cluster_are_not_counted_on_this_machine():
    assert composed("placement=cluster", "placement.nodes=3").placement.infer.replicas == 19


@pytest.mark.parametrize(
    "override",
    ["no_such_key=1", "mode.no_such_key=1", "iterations=many", "loss.kl_estimator=k9", "task=none_such"],
)
def test_unknown_keys_and_wrong_types_are_refused(override):
    with pytest.raises((HydraException, ConfigError)):
        composed(override)


def leaves(schema: type, prefix: str = "") -> list[str]:
    keys = []
    for item in fields(schema):
        if is_dataclass(item.type):
            keys += leaves(item.type, f"{prefix}{item.name}.")
        else:
            keys.append(prefix + item.name)
    return keys


def test_every_key_has_a_reader_outside_schema_and_checks():
    read = set()
    for file in PACKAGE.rglob("*.py"):
        if file.name != "config.py" and file.parent.name != "checks":
            tree = ast.parse(file.read_text(encoding="utf-8"))
            read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    orphans = [key for key in leaves(RunConfig) if key.rpartition(".")[2] not in read]
    assert not orphans
