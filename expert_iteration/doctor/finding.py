"""What a check has found: green, or red with the cause and the remedy."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    GREEN = "green"
    RED = "red"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    """Name of the check, a few words."""
    status: Status
    detail: str
    """What was seen; of a red one the cause, of a skipped one why it was not made."""
    remedy: str = ""
    """What to do about a red one."""


def green(check: str, detail: str) -> Finding:
    return Finding(check, Status.GREEN, detail)


def red(check: str, cause: str, remedy: str) -> Finding:
    return Finding(check, Status.RED, cause, remedy)


def skipped(check: str, why: str) -> Finding:
    return Finding(check, Status.SKIPPED, why)
