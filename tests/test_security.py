"""Closed doors: what strangers, data, models and checkpoints of unknown origin cannot do; see SECURITY.md.

Elsewhere: what a grading worker inherits (test_grading_pool, test_ifeval), foreign text on the terminal and
in logs (test_reporting), rows that are refused (test_data_readers), models that are refused (test_model).
"""

import ast
import json
import logging
import os
import pickle
import re
import resource
import shutil
import socketserver
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors import SafetensorError
from safetensors.torch import load_file

from expert_iteration.checks import check, from_hydra
from expert_iteration.choices import WandbMode
from expert_iteration.config import (
    AlgorithmConfig,
    ConfigError,
    LoggerConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PlacementConfig,
    RunConfig,
    to_plain,
)
from expert_iteration.demo import MODEL_FOLDER, problems
from expert_iteration.grading.grader import VERIFIER
from expert_iteration.grading.ifeval import INSTRUCTION_WORKER
from expert_iteration.grading.pool import Pool
from expert_iteration.launch import config_folder, register
from expert_iteration.learner import Learner
from expert_iteration.model import load_model
from expert_iteration.output import captured_output
from expert_iteration.reporting.messages import SafeFormatter
from expert_iteration.reporting.redact import REDACTED, masked, redact
from expert_iteration.reporting.wandb_logger import WandbLogger
from expert_iteration.tokenizer import load_tokenizer
from expert_iteration.vllm_start import engine_args
from tests.runs import SMALL, train

ROOT = Path(__file__).parents[1]
SOURCES = sorted(file for folder in ("expert_iteration", "scripts") for file in (ROOT / folder).rglob("*.py"))
CANARIES = {
    "WANDB_API_KEY": "c0ffee00" * 5,
    "HF_TOKEN": "hf_canaryCanaryCanaryCanary",
    "OPENAI_API_KEY": "sk-canary-0123456789",
    "AWS_SECRET_ACCESS_KEY": "canary/secret+access=",
    "DATABASE_PASSWORD": "canary-of-a-mine",
}


# What the code itself never does


def dangers(tree: ast.AST) -> list[str]:
    """What in a program would run what it reads, or leave the checks off."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in PICKLES]
        elif isinstance(node, ast.ImportFrom) and node.module in PICKLES:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            arguments = {f"{one.arg}={ast.unparse(one.value)}" for one in node.keywords}
            found += [called] if called in CALLS else []
            found += sorted(arguments & ARGUMENTS)
    return found


PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CALLS = {"eval", "exec", "os.system", "os.popen", "torch.load", "yaml.load", "yaml.unsafe_load"}
ARGUMENTS = {"shell=True", "weights_only=False", "trust_remote_code=True", "allow_pickle=True"}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_module_runs_what_it_reads(file: Path) -> None:
    assert dangers(ast.parse(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "program",
    [
        "eval('1')",
        "exec(text)",
        "import pickle",
        "from marshal import loads",
        "torch.load(file, weights_only=True)",
        "load(file, weights_only=False)",
        "run(command, shell=True)",
        "Model.from_pretrained(folder, trust_remote_code=True)",
        "numpy.load(file, allow_pickle=True)",
        "os.system('ls')",
    ],
)
def test_the_search_finds_each_danger(program: str) -> None:
    assert len(dangers(ast.parse(program))) == 1


def test_no_shell_script_runs_what_it_reads() -> None:
    for file in (ROOT / "scripts").rglob("*.sh"):
        assert not re.search(r"\beval\b|\|\s*(ba)?sh\b", file.read_text(encoding="utf-8")), file


def test_code_of_models_cannot_be_allowed_by_any_key() -> None:
    written = [file.read_text(encoding="utf-8") for file in (ROOT / "config").rglob("*.yaml")]
    assert "remote_code" not in json.dumps(to_plain(RunConfig())) + "".join(written)


# Names


@pytest.fixture(scope="module")
def demo() -> RunConfig:
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return from_hydra(compose("train"))


@pytest.mark.parametrize("key", ["name", "group", "project"])
@pytest.mark.parametrize(
    "name", ["../../x", "..", "a/b", "a b", "", "a" * 65, "\x1b[2J", "a\n", "naïve", "{}", "a\x7f"]
)
def test_a_hostile_run_name_is_refused_with_key_value_and_remedy(
    demo: RunConfig, key: str, name: str
) -> None:
    with pytest.raises(ConfigError, match=rf"logger\.{key} .* choose a name") as raised:
        check(replace(demo, logger=replace(demo.logger, **{key: name})))
    assert str(raised.value).isprintable() and len(str(raised.value)) < 200


def test_plain_run_names_are_taken(demo: RunConfig) -> None:
    check(replace(demo, logger=replace(demo.logger, name="a.b-C_3", group="a" * 64, project="x")))


# Secrets


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    return CANARIES


def test_secrets_of_the_environment_are_masked_in_any_text(canaries: dict[str, str]) -> None:
    for value in canaries.values():
        assert masked(f"401 for {value}: denied") == f"401 for {REDACTED}: denied"
    config = RunConfig(logger=LoggerConfig(project=canaries["HF_TOKEN"], group="all"))
    assert redact(to_plain(config))["logger"]["project"] == REDACTED
    assert redact(to_plain(config))["logger"]["group"] == "all"


def test_of_two_secrets_the_longer_one_leaves_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "canary-12")
    monkeypatch.setenv("B_TOKEN", "canary-12-and-more")
    assert masked("canary-12-and-more") == REDACTED


def test_logins_in_addresses_are_masked() -> None:
    masked_address = masked("cannot read https://me:hunter2@example.org/a@b of http://example.org")
    assert masked_address == f"cannot read https://{REDACTED}@example.org/a@b of http://example.org"


def test_log_messages_hold_no_secret_and_neither_do_their_tracebacks(canaries: dict[str, str]) -> None:
    secret = canaries["OPENAI_API_KEY"]
    try:
        raise ValueError(secret)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "no %s", (secret,), sys.exc_info())
    text = SafeFormatter("%(message)s").format(record)
    assert secret not in text and text.count(REDACTED) == 2


def test_names_sent_to_wandb_hold_no_secret(tmp_path: Path, canaries: dict[str, str]) -> None:
    pytest.importorskip("wandb")
    secret = canaries["HF_TOKEN"]
    names = LoggerConfig(WandbMode.offline, project=secret, group=secret, name=secret)
    WandbLogger(RunConfig(logger=names), tmp_path).finish({})
    assert leaks(tmp_path, {"HF_TOKEN": secret}) == []


def leaks(folder: Path, secrets: dict[str, str]) -> list[str]:
    """Files that hold a secret, or are called by it."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    return [
        f"{file}: {name}"
        for file in files
        for name, value in secrets.items()
        if value.encode() in file.read_bytes() or value in str(file)
    ]


def test_logs_of_processes_are_for_their_user_alone_and_follow_no_link(tmp_path: Path) -> None:
    with captured_output(tmp_path, "driver"):
        pass
    assert (tmp_path / "logs" / "driver.log").stat().st_mode & 0o077 == 0
    (tmp_path / "logs" / "elsewhere.log").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="elsewhere"), captured_output(tmp_path, "elsewhere"):
        pass
    assert not (tmp_path / "victim").exists()


# Models and checkpoints


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self._mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that is there when foreign code has run."""
    return tmp_path / "foreign_code_has_run"


def test_the_bomb_works(mark: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


def hostile_model(source: Path, folder: Path, mark: Path) -> Path:
    """A sound model that also brings code in every way that transformers knows."""
    shutil.copytree(source, folder)
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    for name in ("configuration_x.py", "modeling_x.py", "tokenization_x.py", "processing_x.py"):
        (folder / name).write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    torch.save({"x": Bomb(mark)}, folder / "pytorch_model.bin")
    torch.save({"x": Bomb(mark)}, folder / "training_args.bin")
    automatic = {
        "AutoConfig": "configuration_x.Config",
        "AutoModel": "modeling_x.Model",
        "AutoModelForCausalLM": "modeling_x.Model",
        "AutoProcessor": "processing_x.Processor",
        "AutoTokenizer": ["tokenization_x.Tokenizer", "tokenization_x.Tokenizer"],
    }
    for name in ("config.json", "tokenizer_config.json"):
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": automatic}))
    return folder


def test_code_beside_a_model_and_its_tokenizer_is_not_run(tmp_path: Path, mark: Path) -> None:
    config = ModelConfig(path=str(hostile_model(MODEL_FOLDER, tmp_path / "model", mark)))
    load_model(config, "cpu")
    load_tokenizer(config)
    assert not mark.exists()


def test_pickled_weights_are_no_weights(tmp_path: Path, mark: Path) -> None:
    folder = hostile_model(MODEL_FOLDER, tmp_path / "model", mark)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="safetensors"):
        load_model(ModelConfig(path=str(folder)), "cpu")
    assert not mark.exists()


@pytest.mark.parametrize("elsewhere", ["../outside.safetensors", "{}/outside.safetensors", "a/b.safetensors"])
def test_shards_outside_the_folder_of_a_model_are_refused(tmp_path: Path, elsewhere: str) -> None:
    folder, outside = tmp_path / "model", tmp_path / "outside.safetensors"
    shutil.copytree(MODEL_FOLDER, folder)
    (folder / "model.safetensors").rename(outside)
    shards = dict.fromkeys(load_file(outside), elsewhere.format(tmp_path))
    index = {"metadata": {"total_size": 1}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="no file of this folder"):
        load_model(ModelConfig(path=str(folder)), "cpu")


def test_the_engine_is_told_to_run_no_code_and_to_read_safetensors_alone() -> None:
    told = engine_args(ModelConfig(path="x", max_length=16), PlacementConfig(), seed=0)
    assert (told["trust_remote_code"], told["load_format"]) == (False, "safetensors")


def test_pickles_in_a_checkpoint_are_not_opened(tiny_model: Path, tmp_path: Path, mark: Path) -> None:
    config = RunConfig(
        model=ModelConfig(path=str(tiny_model)),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        algorithm=AlgorithmConfig(name="expert_iteration"),
        loss=LossConfig(length_divisor=16),
    )
    learner, folder = Learner(config), tmp_path / "checkpoint"
    folder.mkdir()
    learner.save(folder)
    [state] = folder.glob("*.safetensors")
    for weights in (state, folder / "model" / "model.safetensors"):
        sound = weights.read_bytes()
        weights.write_bytes(pickle.dumps(Bomb(mark)))
        with pytest.raises((SafetensorError, ConfigError)):
            learner.load(folder)
        weights.write_bytes(sound)
    learner.load(folder)
    assert not mark.exists()


# Grading


@pytest.fixture(scope="module", params=[VERIFIER, INSTRUCTION_WORKER], ids=["verifier", "instructions"])
def judge(request: pytest.FixtureRequest) -> Iterator[Pool]:
    pool = Pool(request.param, workers=1, deadline=20.0)
    pool.map([("judge", "x+1", "1+x") if request.param == VERIFIER else ("x", NO_COMMA)])
    yield pool
    pool.close()


NO_COMMA = json.dumps({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]})


def test_a_grading_worker_has_every_limit(judge: Pool) -> None:
    [worker] = judge.processes()
    for kind, most in {
        resource.RLIMIT_AS: 2**30,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }.items():
        soft, hard = resource.prlimit(worker, kind)
        assert 0 <= soft <= hard <= most
    cpu_seconds, _ = resource.prlimit(worker, resource.RLIMIT_CPU)
    assert 0 < cpu_seconds < 120


def test_an_answer_that_is_a_program_is_not_run(mark: Path) -> None:
    pool = Pool(VERIFIER, workers=1, deadline=20.0)
    opening = f"open('{mark}','w')"
    programs = [
        opening,
        f"__import__('pathlib').Path('{mark}').touch()",
        f"\\text{{{opening}}}",
        f'\\operatorname{{eval}}("{opening}")',
        f"(lambda: {opening})()",
        f"1+{opening}",
        f"\\write18{{touch {mark}}}",
    ]
    pool.map([("judge", program, "1") for program in programs])
    pool.map([("judge", "1", program) for program in programs])
    pool.map([("find", f"the final answer is ${program}$ or {program}") for program in programs])
    pool.close()
    assert not mark.exists()


# Whole runs


@dataclass
class Exchange:
    """A proxy that writes down who is called, and connects nobody."""

    port: int
    calls: list[str] = field(default_factory=list)


@contextmanager
def exchange() -> Iterator[Exchange]:
    calls: list[str] = []

    class Call(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            calls.append(self.rfile.readline().decode(errors="replace"))
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Call) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Exchange(server.server_address[1], calls)
        server.shutdown()


HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07\n[0:00:00] iteration 1/1: greedy 100.0%\r{question.__class__}{gold}{0}%s\u202e"
)


def hostile_rows(folder: Path) -> str:
    """Questions of the demo among rows that try to break out of their text."""
    sound = [
        {"question": problem.question, "gold": problem.answer, "reasoning": "; ".join(problem.steps)}
        for problem in problems.train(60, 0)
    ]
    hostile = [
        {"question": f"{HOSTILE} {number} 1+{number}?", "gold": str(number + 1), "reasoning": HOSTILE}
        | {"level": HOSTILE, "subject": f"../{HOSTILE}", "id": f"{HOSTILE}{number % 10}"}
        for number in range(12)
    ]
    huge = [{"question": "x" * 1_100_000, "gold": "1"}, {"question": "[" * 5000, "gold": HOSTILE}]
    folder.mkdir()
    lines = [json.dumps(row) for row in sound + hostile + huge] + [
        "[" * 100_000,
        f'{{"question": {HOSTILE}}}',
    ]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return str(folder / "rows.jsonl")


@pytest.mark.real
def test_a_run_with_hostile_data_and_a_hostile_model_leaks_nothing_runs_nothing_and_calls_nobody(
    tmp_path: Path, mark: Path, canaries: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    model = hostile_model(MODEL_FOLDER, tmp_path / "model", mark)
    with exchange() as calls:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            for spelled in (name, name.lower()):
                monkeypatch.setenv(spelled, f"http://127.0.0.1:{calls.port}")
        for name in ("NO_PROXY", "no_proxy", "DO_NOT_TRACK", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("WANDB_SAVE_CODE", "true")
        monkeypatch.setenv("VLLM_CONFIG_ROOT", str(tmp_path / "vllm"))
        run = train(
            tmp_path / "run",
            *SMALL,
            "iterations=1",
            "placement=local",
            "logger=wandb",
            "logger.wandb=offline",
            "task=jsonl",
            "task/prompt=demo",
            f"task.path={hostile_rows(tmp_path / 'data')}",
            "task.max_tokens=48",
            "task.held_out=0.4",
            f"model.path={model}",
        )
    assert run.code == 0, run.output
    assert leaks(run.folder, canaries) == []
    assert not [name for name, value in canaries.items() if value in run.output]
    assert not mark.exists()
    assert calls.calls == []
    assert not {file.suffix for file in run.folder.rglob("*")} & {".py", ".bin", ".pt", ".pkl", ".pickle"}
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "model", "run", "vllm"}
    files = [run.folder / "run.log", *run.folder.glob("*.json*"), *run.folder.glob("rollouts/*")]
    for text in (run.output, *(file.read_text() for file in files)):
        assert not {char for char in text if not char.isprintable()} - {"\n"}
        assert not re.search(r"^\[0:00:00\] iteration 1/1: greedy 100", text, re.MULTILINE)
    asked = {row["question"] for row in run.rollouts}
    assert any(HOSTILE in question for question in asked), "a hostile question is asked as it stands"


JOIN = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
    print("joined", flush=True)
except ConnectionError:
    print("refused", flush=True)
"""
HOST = """
import os, sys
from expert_iteration.actors import instance
from expert_iteration.config import AlgorithmConfig, RunConfig
instance.start_ray(RunConfig(algorithm=AlgorithmConfig(name="expert_iteration")))
node = instance.ray._private.worker._global_node
print(node.gcs_address, node.get_session_dir_path(), os.environ["RAY_AUTH_TOKEN"], flush=True)
sys.stdin.readline()
instance.ray.shutdown()
"""


def stranger(address: str, token: str | None) -> "subprocess.Popen[str]":
    """A process of this machine that would join a Ray instance, with a token or without."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    if token is not None:
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    command = [sys.executable, "-c", JOIN, address]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def descendants(pid: int) -> set[int]:
    listed = subprocess.check_output(["ps", "-e", "-o", "pid=,ppid="], text=True)
    children = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found, size = {pid}, 0
    while size < len(found):
        size = len(found)
        found |= {child for child, parent in children if parent in found}
    return found


def listening(pids: set[int]) -> set[str]:
    """Addresses, in the kernel's hexadecimal, on which any of the processes waits for TCP connections."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            sockets |= set(re.findall(r"^socket:\[(\d+)\]$", str(link.readlink())))
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.real
@pytest.mark.alone
def test_a_stranger_cannot_join_the_ray_of_a_run(canaries: dict[str, str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    host = subprocess.Popen(
        [sys.executable, "-c", HOST],
        cwd=ROOT,
        env=environment | {"RAY_ADDRESS": "192.0.2.1:6379"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert host.stdin is not None and host.stdout is not None
    try:
        address, session, token = host.stdout.readline().split()
        strangers = {
            "no token": stranger(address, None),
            "wrong token": stranger(address, "0" * 64),
            "the token": stranger(address, token),
        }
        found = {name: process.communicate(timeout=60)[0].strip() for name, process in strangers.items()}
        assert found == {"no token": "refused", "wrong token": "refused", "the token": "joined"}
        assert listening(descendants(host.pid)) <= LOOPBACK
        assert uninvited_request(address, Path(session)) == 401
        folder = Path(session).parents[1]
        assert folder.stat().st_mode & 0o077 == 0
        assert leaks(Path(session), canaries | {"RAY_AUTH_TOKEN": token}) == []
        assert not list(Path(session).rglob("usage_stats.json"))
    finally:
        host.communicate("\n", timeout=60)
    assert not folder.exists()


def uninvited_request(address: str, session: Path) -> int:
    """What the agent that installs packages for tasks answers to somebody without a token."""
    [port] = [file.read_text() for file in session.glob("runtime_env_agent_port_*")]
    url = f"http://{address.partition(':')[0]}:{port}/get_or_create_runtime_env"
    try:
        return urllib.request.urlopen(url, data=b"", timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code


HUB = """
import expert_iteration.tokenizer
from huggingface_hub.constants import HF_HUB_DISABLE_TELEMETRY as silent
raise SystemExit(not silent)
"""
SILENCED = ("DO_NOT_TRACK", "DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE")


def test_the_hub_is_told_nothing_whatever_the_environment_says() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in SILENCED}
    subprocess.run([sys.executable, "-c", HUB], env=environment, cwd=ROOT, check=True)
