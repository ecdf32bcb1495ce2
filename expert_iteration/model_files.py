"""Where the files of a model lie, and the digest that tells them from others."""

from dataclasses import replace
from pathlib import Path
from shutil import copyfile

from huggingface_hub import snapshot_download

from expert_iteration.config import ConfigError, ModelConfig

MODEL_FILES = ("*.json", "*.jinja", "*.model", "*.safetensors", "*.txt")
"""What a model folder may hold for us: no pickled weights, no Python files."""

TOKENIZER_FILES = ("added_tokens*", "chat_template*", "merges*", "special_tokens*", "tokenizer*", "vocab*")
ADAPTER = "adapter_config.json"
"""File that an adapter has and a whole model has not."""


def copy_tokenizer(source: Path, folder: Path) -> None:
    """From one model folder to another."""
    for file in {file for pattern in TOKENIZER_FILES for file in source.glob(pattern) if file.is_file()}:
        copyfile(file, folder / file.name)


def model_folder(config: ModelConfig) -> Path:
    """The local folder of `config.path`; a hub id is downloaded, or found in the hub's cache.

    Raises:
        ConfigError: there is no such folder, and no such model on the hub; or it holds an adapter alone.
    """
    folder = Path(config.path)
    if (folder / ADAPTER).is_file() and not (folder / "config.json").is_file():
        raise ConfigError(
            f"model.path={config.path} holds a LoRA adapter, not a whole model; `python scripts/export.py "
            "RUN OUT` merges the adapter of a run into its base model: give OUT."
        )
    if folder.is_dir():
        return folder
    try:
        patterns = list(MODEL_FILES)
        return Path(snapshot_download(config.path, revision=config.revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.path={config.path} is neither a folder nor a model that the hub can deliver "
            f"({str(error).splitlines()[0]}); give a folder with config.json and safetensors, or a hub id."
        ) from error


def pinned(config: ModelConfig) -> ModelConfig:
    """The same model under a name that means it on every node.

    A folder has its absolute path, which must be there on each of them. A hub id has the commit that its
    revision stands for now, and each node downloads that once: the hub's library locks what it writes.

    Raises:
        ConfigError: there is no such model.
    """
    if config.path == "demo":
        return config  # each node has it in its own package
    folder = model_folder(config)
    if Path(config.path).is_dir():
        return replace(config, path=str(folder.absolute()))
    return replace(config, revision=folder.name)


def is_there(config: ModelConfig) -> bool:
    """Whether this node has a pinned model, or can download it."""
    return not Path(config.path).is_absolute() or (Path(config.path) / "config.json").is_file()
