"""Whether a run may go on as it is configured now: what it rests on must be what it began with."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from expert_iteration.checkpoint import Provenance, Standing
from expert_iteration.choices import KLSchedule, Schedule
from expert_iteration.config import ConfigError, RunConfig, to_plain
from expert_iteration.reporting.redact import redact

HARMLESS = (
    "resume",
    "recover",
    "wait_limit",
    "runtime",
    "micro_batch_tokens",
    "checkpoint.",
    "eval.every",
    "eval.against",
    "eval.ks",
    "eval.samples",
    "eval.seeds",
    "eval.temperatures",
    "grading.",
    "health.",
    "logger.",
    "placement.",
    "ray.",
    "model.path",
    "model.revision",
    "model.gradient_checkpointing",
    "task.path",
    "values.path",
    "optimizer.max_skipped",
)
"""Keys, and beginnings of keys, that may change: what is trained on which answers stays the same. The hashes
of data and model are compared apart, wherever these lie."""

INEXACT = ("runtime", "micro_batch_tokens", "placement.")
"""Of those, the ones that change how sums are rounded."""

Changes: TypeAlias = dict[str, tuple[object, object]]
"""Key -> its value in the checkpoint, and now."""

logger = logging.getLogger(__name__)


def refuse_changes(run_dir: Path, saved: Standing, config: RunConfig, here: Provenance) -> None:
    """Let a run go on only with the data, the model and the settings that it began with.

    Changes that do no harm are named in the log, with what they mean for exactness.

    Raises:
        ConfigError: naming what differs, both values, and the remedy.
    """
    before = saved.provenance
    for what, there, now in (
        ("data", before.data_hash, here.data_hash),
        ("initial model", before.model_hash, here.model_hash),
    ):
        if there != now:
            raise ConfigError(
                f"resume ({run_dir}): its {what} has the hash {there}, but that of this configuration has "
                f"{now}; bring back what it began with, or start a new run."
            )
    changes = changes_between(saved.config, redact(to_plain(config)))
    if refused := {key: values for key, values in changes.items() if not harmless(key, config)}:
        raise ConfigError(
            f"resume ({run_dir}): {_said(refused)}; bring back the values that it began with, or start a new "
            "run with model.path set to the model folder of its last checkpoint."
        )
    _announce(changes, before, here)


def changes_between(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """Keys whose values differ, also those that only one of the two has, which are null in the other."""
    one, other = dict(_flat(saved)), dict(_flat(now))
    keys = sorted(one.keys() | other.keys())
    return {key: (one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)}


def harmless(key: str, config: RunConfig) -> bool:
    """Whether a run may go on with another value of `key`."""
    if key == "iterations":
        constant = config.optimizer.schedule is Schedule.constant
        return constant and config.loss.kl_schedule is KLSchedule.constant
    return key.startswith(HARMLESS)


def _announce(changes: Changes, before: Provenance, here: Provenance) -> None:
    if changes := {key: values for key, values in changes.items() if key != "resume"}:
        logger.warning("the run goes on with other settings: %s.", _said(changes))
    if before.grader_version != here.grader_version:
        logger.warning(
            "this run was judged by grader version %s and goes on with version %s: answers that were "
            "kept stay as they were judged, and only new ones are judged by the new version.",
            before.grader_version,
            here.grader_version,
        )
    others = changes_between(before.versions, here.versions)
    if others or any(key.startswith(INEXACT) for key in changes):
        reason = _said(others) if others else "settings"
        logger.warning(
            "sums may be rounded otherwise than before the stop (%s): not exact to the bit.", reason
        )


def _said(changes: Changes) -> str:
    return ", ".join(f"{key} {there!r} -> {now!r}" for key, (there, now) in changes.items())


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
