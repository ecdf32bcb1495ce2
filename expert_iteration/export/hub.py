"""Sending a folder to the Hugging Face hub: private unless asked otherwise, and never silently."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from expert_iteration.config import ConfigError
from expert_iteration.reporting.redact import masked
from expert_iteration.reporting.text import one_line

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


class Hub(Protocol):
    """What is asked of the hub: methods of `huggingface_hub.HfApi`, which finds the user's token itself."""

    def repo_exists(self, repo_id: str) -> bool: ...

    def repo_info(self, repo_id: str) -> Any: ...

    def create_repo(self, repo_id: str, *, private: bool) -> Any: ...

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> Any: ...


def check_name(name: str) -> None:
    """
    Raises:
        ConfigError: it cannot be the name of a model on the hub.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"--push-to-hub {one_line(name, 60)!r} is no name on the hub; give OWNER/NAME.")


def describe_upload(folder: Path, name: str, public: bool) -> Iterator[str]:
    """What would be sent where, line by line."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    who = "public: everybody can read it" if public else "private"
    yield f"{len(files)} files, {size / 2**20:,.1f} MiB, to https://huggingface.co/{name} ({who}):"
    for file in files:
        yield f"  {file.stat().st_size:>15,}  {one_line(str(file.relative_to(folder)))}"


def upload(folder: Path, name: str, hub: Hub, public: bool = False) -> None:
    """Send all files of `folder` to the model `name`, which is made if it is not there.

    Raises:
        ConfigError: the hub refuses or cannot be reached, or everybody could read what was not to be public.
    """
    from huggingface_hub.errors import HTTPError

    try:
        if not hub.repo_exists(name):
            hub.create_repo(name, private=not public)
        elif not public and not hub.repo_info(name).private:
            raise ConfigError(f"{name} is public on the hub; name another model, or say --public.")
        hub.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Export from a run of expert iteration"
        )
    except (OSError, HTTPError) as error:
        reason = masked(one_line((str(error).strip() or type(error).__name__).splitlines()[0], 300))
        raise ConfigError(
            f"the hub did not take {name} ({reason}); check the network and `hf auth login`, then try again."
        ) from error
