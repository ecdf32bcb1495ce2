"""Secrets stay where they are: in the environment, and in the user's head."""

import os
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

REDACTED = "<redacted>"

SECRET = re.compile(r"token(?!iz)|key|secret|password|passwd|credential|env_vars", re.IGNORECASE)
TOKEN_COUNT = re.compile(r"(^|_)tokens$", re.IGNORECASE)
IN_ADDRESS = re.compile(r"(?<=://)[^\s/@]+(?=@)")
"""User and password of `https://user:password@host`."""
SHORTEST = 8
"""Characters below which the value of a variable is more likely a word than a secret."""


def redact(value: Any) -> Any:
    """A copy of a nested configuration that is safe to send: plain JSON types, no secrets.

    The value of every key that names a secret becomes ``<redacted>``, whatever lies below it, and so does
    every secret within other texts (`masked`). Counts of tokens (`max_tokens`, `micro_batch_tokens`) are no
    secrets and stay, as long as they are numbers.
    """
    if isinstance(value, Mapping):
        return {
            str(key): REDACTED if _is_secret(str(key), item) else redact(item) for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item) for item in value]
    if isinstance(value, Enum):
        return redact(value.value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return masked(str(value))


def masked(text: str) -> str:
    """`text` without logins in addresses, and without the values of variables whose name is a secret's."""
    for secret in _secrets_of_the_environment():
        text = text.replace(secret, REDACTED)
    return IN_ADDRESS.sub(REDACTED, text)


def _secrets_of_the_environment() -> list[str]:
    """Longest first, as one may be part of another."""
    values = {value for name, value in os.environ.items() if SECRET.search(name) and len(value) >= SHORTEST}
    return sorted(values, key=len, reverse=True)


def _is_secret(key: str, value: Any) -> bool:
    counts_tokens = TOKEN_COUNT.search(key) and (value is None or isinstance(value, int | float))
    return SECRET.search(key) is not None and not counts_tokens
