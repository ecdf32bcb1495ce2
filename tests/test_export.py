"""What is exported is the checkpoint, whole, in a folder that others load; and nothing leaves unasked."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from expert_iteration.checkpoint import DamagedCheckpoint, SaveFailed
from expert_iteration.config import ConfigError
from expert_iteration.demo import MODEL_FOLDER
from expert_iteration.export.folder import export, find_checkpoint, is_export_of
from expert_iteration.export.hub import check_name, describe_upload, upload
from tests.sealed import sealed

ROOT = Path(__file__).parents[1]
SECRET = "hf_canaryCanaryCanaryCanary"
CONFIG = {
    "seed": 1,
    "model": {"path": "Qwen/Qwen2.5-0.5B"},
    "task": {"name": "gsm8k", "prompt": {"template": "r1_zero"}},
    "algorithm": {"name": "expert_iteration"},
    "optimizer": {"learning_rate": 0.0005},
}
HOSTILE = "a`b`|c\n# forged <b>"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three iterations of eight steps, with checkpoints of the last two; the second was better."""
    folder = tmp_path / "run"
    sealed(folder, MODEL_FOLDER, 16, accuracy=0.5, config=CONFIG)
    sealed(folder, MODEL_FOLDER, 24, accuracy=0.25, config=CONFIG)
    events = [
        {"iteration": 0, "step": 0, "eval/greedy": 0.1, "eval/n": 300.0, "eval/format": 0.9},
        {"iteration": 2, "step": 16, "eval/greedy": 0.5, "eval/n": 300.0, "eval/format": 1.0},
        {"iteration": 3, "step": 24, "loss/total": 1.0},
        {"iteration": 3, "step": 24, "eval/greedy": 0.25, "eval/n": 300.0, "eval/format": 1.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "summary.json").write_text(json.dumps({"exit_reason": "finished", "seconds": 61.0}))
    (folder / ".hydra").mkdir()
    overrides = [
        "task=gsm8k",
        "sampling.max_tokens=48",
        f"+hub_token={SECRET}",
        "task.prompt.stop=[a b]",
        "resume=/home/me",
    ]
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {json.dumps(one)}\n" for one in overrides))
    return folder


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(torch.arange(3, 40)[None]).logits


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


# Which checkpoint


def test_the_newest_checkpoint_of_a_run_is_taken_or_the_best_or_that_of_a_step(run: Path) -> None:
    assert find_checkpoint(run).name == "step_00000024"
    assert find_checkpoint(run, best=True).name == "step_00000016"
    assert find_checkpoint(run, step=16) == run / "checkpoints" / "step_00000016"
    assert find_checkpoint(run / "checkpoints" / "step_00000016").name == "step_00000016"


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no checkpoint of step 8, only of \[16, 24\]"):
        find_checkpoint(run, step=8)
    with pytest.raises(ConfigError, match="is a checkpoint already"):
        find_checkpoint(run / "checkpoints" / "step_00000016", best=True)
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)
    sealed(tmp_path / "other", MODEL_FOLDER)
    with pytest.raises(ConfigError, match="was evaluated"):
        find_checkpoint(tmp_path / "other", best=True)


def test_a_damaged_checkpoint_is_refused_and_left_where_it_is(run: Path) -> None:
    weights = run / "checkpoints" / "step_00000024" / "model" / "model.safetensors"
    contents = bytearray(weights.read_bytes())
    contents[-1] ^= 1
    weights.write_bytes(contents)
    with pytest.raises(DamagedCheckpoint, match="other contents than were written"):
        find_checkpoint(run)
    assert weights.is_file()
    assert find_checkpoint(run, step=16).is_dir()


# The folder


def test_an_export_loads_in_transformers_with_the_weights_tokenizer_and_ends_of_the_checkpoint(
    run: Path, tmp_path: Path
) -> None:
    checkpoint = find_checkpoint(run)
    export(checkpoint, tmp_path / "out")
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(loaded(checkpoint / "model")))
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (checkpoint / "model" / file).read_bytes()
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == 2
    turn = [{"role": "user", "content": "2+2?"}]
    assert "2+2?" in AutoTokenizer.from_pretrained(tmp_path / "out").apply_chat_template(turn, tokenize=False)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}, "no draft is left"


def test_a_folder_that_holds_something_is_not_written_to(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        export(find_checkpoint(run), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    (tmp_path / "out" / "mine").unlink()
    export(find_checkpoint(run), tmp_path / "out")


def test_an_export_that_fails_leaves_nothing(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SaveFailed, match="could not be written"):
        export(find_checkpoint(run), tmp_path / "file" / "out")
    incomplete = tmp_path / "model"
    incomplete.mkdir()
    (incomplete / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"holds no \*\.safetensors"):
        export(sealed(tmp_path / "other", incomplete), tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "other", "model", "file"}


def test_links_and_code_are_not_exported(tmp_path: Path) -> None:
    checkpoint = sealed(tmp_path / "run", MODEL_FOLDER)
    (checkpoint / "model" / "modeling.py").write_text("import os")
    (checkpoint / "model" / "notes.txt").symlink_to("/etc/hostname")
    export(checkpoint, tmp_path / "out")
    assert not {"modeling.py", "notes.txt"} & {path.name for path in (tmp_path / "out").iterdir()}


# The card


def test_the_card_gives_the_accuracy_of_this_very_checkpoint_with_its_interval(
    run: Path, tmp_path: Path
) -> None:
    export(find_checkpoint(run, best=True), tmp_path / "best")
    export(find_checkpoint(run), tmp_path / "last")
    row = "| accuracy, greedy | 10.0% [7.1, 13.9] of 300 |"
    assert f"{row} 50.0% [44.4, 55.6] of 300 |" in card_of(tmp_path / "best")
    assert f"{row} 25.0% [20.4, 30.2] of 300 |" in card_of(tmp_path / "last")
    assert "3 iterations (24 optimizer steps) of `expert_iteration`" in card_of(tmp_path / "last")


def test_the_card_says_what_the_model_was_made_from_and_names_no_license(run: Path, tmp_path: Path) -> None:
    export(find_checkpoint(run), tmp_path / "out")
    card = card_of(tmp_path / "out")
    head = card.split("---\n")[1]
    assert "base_model: Qwen/Qwen2.5-0.5B\n" in head and "license" not in head
    for line in (
        "| data, sha256 | `c0ffee` |",
        "| torch | `2.13.0` |",
        "| learning rate | `0.0005` |",
        "| run | `finished after 0:01:01` |",
        "None is stated.",
    ):
        assert line in card


def test_the_command_in_the_card_can_be_copied_and_holds_no_secret(run: Path, tmp_path: Path) -> None:
    export(find_checkpoint(run), tmp_path / "out")
    card = card_of(tmp_path / "out")
    for word in (
        "task=gsm8k",
        "sampling.max_tokens=48",
        "'+hub_token=<redacted>'",
        "'task.prompt.stop=[a b]'",
    ):
        assert f"        {word}" in card
    assert SECRET not in card and "/home/me" not in card


def test_a_checkpoint_without_its_run_has_a_card_that_claims_nothing(tmp_path: Path) -> None:
    config = {"model": {"path": HOSTILE}, "task": {"name": HOSTILE}}
    export(sealed(tmp_path / "run", MODEL_FOLDER, config=config), tmp_path / "out")
    card = card_of(tmp_path / "out")
    assert "was not evaluated" in card and "command is not known" in card and "base_model" not in card
    assert "\n# forged" not in card and "`a'b'\\|c\\n# forged <b>`" in card


# Adapters


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A LoRA adapter of the demo model with random weights, and the logits of both together."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(loaded(MODEL_FOLDER), lora).eval()
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder, logits(model)


def test_an_adapter_is_merged_into_its_base_model(adapter: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    folder, expected = adapter
    export(sealed(tmp_path / "run", folder, config=CONFIG), tmp_path / "out")
    merged = logits(loaded(tmp_path / "out"))
    assert torch.allclose(merged, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(merged, logits(loaded(MODEL_FOLDER)), rtol=0, atol=1e-2)
    assert not list((tmp_path / "out").glob("adapter*"))
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (MODEL_FOLDER / name).read_bytes()


def test_an_adapter_alone_is_copied_as_it_is(adapter: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    from peft import PeftModel

    folder, expected = adapter
    export(sealed(tmp_path / "run", folder, config=CONFIG), tmp_path / "out", adapter_only=True)
    assert torch.equal(logits(PeftModel.from_pretrained(loaded(MODEL_FOLDER), tmp_path / "out")), expected)
    assert not list((tmp_path / "out").glob("model*"))
    assert "A LoRA adapter of `Qwen/Qwen2.5-0.5B`" in card_of(tmp_path / "out")


def edited(adapter: Path, copy: Path, **changes: Any) -> Path:
    """A copy of an adapter with another configuration."""
    copy.mkdir()
    (copy / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    config = json.loads((adapter / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(config | changes))
    return copy


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "only those of kind LORA"),
        ({"base_model_name_or_path": None}, "names no base model"),
        ({"target_modules": ["no_such_module"]}, "is no adapter of"),
        ({"target_modules": ["q_proj", "v_proj", "down_proj", "k_proj"]}, "lacks 8 weights"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    adapter: tuple[Path, torch.Tensor], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    model = edited(adapter[0], tmp_path / "adapter", **changes)
    with pytest.raises(ConfigError, match=words):
        export(sealed(tmp_path / "run", model), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pickled_weights_of_an_adapter_are_not_read(
    adapter: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    model = edited(adapter[0], tmp_path / "adapter")
    torch.save(load_file(model / "adapter_model.safetensors"), model / "adapter_model.bin")
    (model / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="is no adapter of"):
        export(sealed(tmp_path / "run", model), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"holds no adapter_model\.safetensors"):
        export(sealed(tmp_path / "run", model), tmp_path / "out", adapter_only=True)


def test_a_whole_model_has_no_adapter_to_export(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no adapter; leave --adapter-only out"):
        export(find_checkpoint(run), tmp_path / "out", adapter_only=True)


# The hub


class FakeHub:
    """Remembers what it was sent."""

    def __init__(self, public: set[str] | None = None, error: Exception | None = None) -> None:
        self.public, self.error = public or set(), error
        self.made: list[tuple[str, bool]] = []
        self.sent: list[tuple[str, Path]] = []

    def repo_exists(self, repo_id: str) -> bool:
        if self.error is not None:
            raise self.error
        return repo_id in self.public

    def repo_info(self, repo_id: str) -> Any:
        return SimpleNamespace(private=repo_id not in self.public)

    def create_repo(self, repo_id: str, *, private: bool) -> None:
        self.made.append((repo_id, private))

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        assert commit_message
        self.sent.append((repo_id, folder_path))


def test_an_upload_is_private_unless_asked_otherwise(tmp_path: Path) -> None:
    hub = FakeHub()
    upload(tmp_path, "me/one", hub)
    upload(tmp_path, "me/two", hub, public=True)
    assert hub.made == [("me/one", True), ("me/two", False)]
    assert hub.sent == [("me/one", tmp_path), ("me/two", tmp_path)]


def test_nothing_is_sent_to_a_public_model_without_the_word(tmp_path: Path) -> None:
    hub = FakeHub(public={"me/one"})
    with pytest.raises(ConfigError, match="is public on the hub"):
        upload(tmp_path, "me/one", hub)
    assert hub.sent == []
    upload(tmp_path, "me/one", hub, public=True)
    assert hub.sent == [("me/one", tmp_path)] and hub.made == []


@pytest.mark.parametrize("error", [HTTPError(f"no route\nfor {SECRET}"), OSError(f"401 for {SECRET}")])
def test_a_hub_that_refuses_is_one_line_without_the_token(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(ConfigError, match="the hub did not take me/one") as raised:
        upload(tmp_path, "me/one", FakeHub(error=error))
    assert SECRET not in str(raised.value) and "\n" not in str(raised.value)


def test_the_real_client_of_the_hub_has_what_is_asked_of_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the hub did not take me/one"):
        upload(tmp_path, "me/one", HfApi(endpoint="http://127.0.0.1:9"))


@pytest.mark.parametrize("name", ["one", "a/b/c", "../x", "me/", "me/a b", "me/\x1b[2J", "-/x"])
def test_a_name_that_the_hub_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name on the hub"):
        check_name(name)


def test_what_would_be_sent_is_listed_with_sizes_and_place(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"0" * 2**20)
    (tmp_path / "README.md").write_text("card")
    first, *files = describe_upload(tmp_path, "me/one", public=False)
    assert first == "2 files, 1.0 MiB, to https://huggingface.co/me/one (private):"
    assert [line.split() for line in files] == [["4", "README.md"], ["1,048,576", "model.safetensors"]]
    assert "public: everybody" in next(describe_upload(tmp_path, "me/one", public=True))


# The command


def command(*arguments: object) -> None:
    runpy.run_path(str(ROOT / "scripts" / "export.py"))["main"]([str(argument) for argument in arguments])


def test_without_yes_nothing_is_uploaded_and_the_export_can_be_edited_before_it_is(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command(run, out)
    (out / "README.md").write_text("---\nlicense: mit\n---\n")
    command(run, out, "--push-to-hub", "me/one")
    said = capsys.readouterr().out
    assert "Nothing was uploaded" in said and "https://huggingface.co/me/one (private)" in said
    assert SECRET not in said
    assert (out / "README.md").read_text() == "---\nlicense: mit\n---\n"


def test_an_export_of_another_checkpoint_is_not_taken_for_this_one(run: Path, tmp_path: Path) -> None:
    export(find_checkpoint(run, step=16), tmp_path / "out")
    assert is_export_of(tmp_path / "out", find_checkpoint(run, step=16), adapter_only=False)
    assert not is_export_of(tmp_path / "out", find_checkpoint(run), adapter_only=False)
    assert not is_export_of(tmp_path, find_checkpoint(run), adapter_only=False)


def test_the_command_ends_with_2_for_the_users_mistake_and_with_4_for_damage(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        command(run, run)
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("error: ")
    (run / "checkpoints" / "step_00000024" / "standing.json").write_text("{}")
    with pytest.raises(SystemExit) as stop:
        command(run, tmp_path / "out")
    assert stop.value.code == 4 and len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
