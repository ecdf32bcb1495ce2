"""The README.md of an exported model: what it was made from, how, and what it reached."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from expert_iteration.checkpoint import Standing
from expert_iteration.reporting.jsonl import Event
from expert_iteration.reporting.redact import masked, redact
from expert_iteration.reporting.statistics import wilson
from expert_iteration.reporting.table import SHARES
from expert_iteration.reporting.text import duration, one_line
from expert_iteration.reports.runs import NoRun, RunFiles

CARD = Template("""---
$head
---
# $title

$kind $base after $made on the task $task.

## License

None is stated. What may be done with these weights depends on the licenses of the base model and of the data
they were trained on: look them up, then add a `license:` line at the top of this file.

## What it reached

$accuracies

## How it was made

$command

$setting

## What it rests on

$origin

## Use

    $use
""")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
USE = {
    False: """from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(FOLDER)""",
    True: """from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), FOLDER)""",
}
"""How it is loaded, by whether it is an adapter alone."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a card says, without secrets."""

    standing: Standing
    adapter_only: bool
    overrides: list[str] | None
    """Of the command line; None: the run's files are gone."""
    before: Event | None
    """Evaluation of the initial model; None: there was none, or it is gone."""
    after: Event | None
    """Evaluation of this very checkpoint."""
    summary: dict[str, Any]
    """summary.json; empty if the run has not ended."""


def facts_of(checkpoint: Path, standing: Standing, adapter_only: bool = False) -> Facts:
    """What the files of the run around a checkpoint say of it."""
    try:
        run = RunFiles.of(checkpoint.resolve().parent.parent)
    except NoRun:
        return Facts(standing, adapter_only, None, None, None, {})
    evaluations = [event for event in run.events if event.get("eval/greedy") is not None]
    steps = standing.progress.steps
    return Facts(
        standing,
        adapter_only,
        # where the run lay is nobody's business, and makes no other run
        [_redacted(override) for override in run.overrides if not override.startswith("resume=")],
        next((event for event in evaluations if event["iteration"] == 0), None),
        next((event for event in reversed(evaluations) if event["step"] == steps), None),
        run.summary,
    )


def model_card(facts: Facts) -> str:
    """README.md of the folder that holds the model."""
    config, progress = facts.standing.config, facts.standing.progress
    base, task = config.get("model", {}).get("path", "?"), config.get("task", {}).get("name", "?")
    method = config.get("algorithm", {}).get("name", "?")
    return CARD.substitute(
        head=_head(base),
        title=f"{_plain(base)}, trained on {_plain(task)}",
        kind="A LoRA adapter of" if facts.adapter_only else "A causal language model:",
        base=_code(base),
        made=f"{progress.iteration:,} iterations ({progress.steps:,} optimizer steps) of {_code(method)}",
        task=_code(task),
        accuracies=_accuracies(facts),
        command=_command(facts.overrides),
        setting=_table(_setting(config)),
        origin=_table(_origin(facts)),
        use=USE[facts.adapter_only],
    )


def _head(base: str) -> str:
    """The lines that the hub reads; a path of this machine means nothing there."""
    lines = ["library_name: transformers", "pipeline_tag: text-generation", "tags: [expert-iteration]"]
    is_hub_id = HUB_ID.fullmatch(base) and not Path(base).exists()
    return "\n".join([*lines, f"base_model: {base}"] if is_hub_id else lines)


def _accuracies(facts: Facts) -> str:
    after = facts.after
    if after is None:
        return "This checkpoint was not evaluated."
    lines = ["| held-out questions | before | after |", "|---|---|---|"]
    lines += [
        f"| {name} | {_share(facts.before or {}, key, trials)} | {_share(after, key, trials)} |"
        for key, (name, trials) in SHARES.items()
        if after.get(key) is not None
    ]
    source = (
        "Shares of answers by the run's own evaluation, with 95% intervals (Wilson) and numbers of trials."
    )
    return "\n".join([*lines, "", source])


def _share(event: Mapping[str, float | None], key: str, trials: str) -> str:
    share, n = event.get(key), event.get(trials)
    if share is None:
        return "-"
    if not n:
        return f"{share:.1%}"
    low, high = wilson(share, round(n))
    return f"{share:.1%} [{100 * low:.1f}, {100 * high:.1f}] of {n:,.0f}"


def _command(overrides: Iterable[str] | None) -> str:
    """Indented, so that nothing in it is Markdown."""
    if overrides is None:
        return "The command is not known: the checkpoint lay outside of its run's folder."
    words = ["    python scripts/train.py", *(shlex.quote(one_line(override)) for override in overrides)]
    return " \\\n        ".join(words)


def _redacted(override: str) -> str:
    """``key=value`` without secrets."""
    key, sign, text = override.partition("=")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    shown = redact({key: value})[key]
    return masked(f"{key}{sign}{text if shown == value else shown}")


def _setting(config: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("seed", "iterations", "prompts_per_iteration", "rollouts_per_prompt", "epochs", "batch_size")
    nested = {
        "learning rate": config.get("optimizer", {}).get("learning_rate"),
        "temperature": config.get("sampling", {}).get("temperature"),
        "longest response, tokens": config.get("sampling", {}).get("max_tokens"),
        "kept per prompt, at most": config.get("selection", {}).get("top_k"),
        "prompt template": config.get("task", {}).get("prompt", {}).get("template"),
    }
    plain = {key.replace("_", " "): config.get(key) for key in keys}
    return {name: value for name, value in (plain | nested).items() if value not in (None, "")}


def _origin(facts: Facts) -> dict[str, Any]:
    provenance = facts.standing.provenance
    rows = {
        "data, sha256": provenance.data_hash,
        "base model, sha256": provenance.model_hash,
        "grader version": provenance.grader_version,
        **provenance.versions,
    }
    if facts.summary:
        rows["run"] = f"{facts.summary['exit_reason']} after {duration(facts.summary['seconds'])}"
    return rows


def _table(rows: Mapping[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {_plain(name)} | {_code(rows[name])} |" for name in rows)])


def _code(foreign: object) -> str:
    """Any text as code within a line of Markdown."""
    return "`" + one_line(masked(str(foreign))).replace("`", "'").replace("|", "\\|") + "`"


def _plain(foreign: object) -> str:
    """Letters, digits and what stands in names; the rest of any text is left out."""
    return re.sub(r"[^\w ./,-]", "", one_line(masked(str(foreign))))
