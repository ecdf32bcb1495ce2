"""A configuration that may leave the machine."""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

REDACTED = "<redacted>"

SECRET = re.compile(r"token(?!iz)|key|secret|password|passwd|credential|env_vars", re.IGNORECASE)
TOKEN_COUNT = re.compile(r"(^|_)tokens$", re.IGNORECASE)


def redact(value: Any) -> Any:
    """A copy of a nested configuration that is safe to send: plain JSON types, no secrets.

    The value of every key that names a secret becomes ``<redacted>``, whatever lies below it. Counts
    of tokens (`max_tokens`, `micro_batch_tokens`) are no secrets and stay, as long as they are
    numbers.
    """
    if isinstance(value, Mapping):
        return {
            str(key): REDACTED if _is_secret(str(key), item) else redact(item) for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item) for item in value]
    if isinstance(value, Enum):
        return redact(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _is_secret(key: str, value: Any) -> bool:
    counts_tokens = TOKEN_COUNT.search(key) and (value is None or isinstance(value, int | float))
    return SECRET.search(key) is not None and not counts_tokens
