"""The rollouts of a run as a page carries them: compressed, and no more than fit.

A page of 20 MB cannot hold every run. What it leaves out is decided by question, not by answer: a question
comes with all its answers of all iterations or not at all, in the order of a hash of its number. So the page
holds a sample of the questions in which no iteration and no verdict has a say, and a run makes one page only.
"""

import base64
import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from expert_iteration.reports.pieces import Pieces

BUDGET = 18_000_000
"""Characters of a page that rollouts may take."""
CHUNK = 500
"""Rollouts whose texts are unpacked together."""
EXPANSION = 6
"""Texts up to so many times the budget are held in memory: more than compression can make of them."""
OVERHEAD = 60
"""What a rollout takes in memory beside its texts, as characters."""

LOWEST = 0x23
HIGHEST_LEVEL = 90
LEVELS_PER_ROOT = 20
SHORTEST = 0x5D


class Carried(NamedTuple):
    """One rollout. The fields up to `surprisal` become columns of numbers, which filters and orders read."""

    iteration: int
    prompt: int
    answer: int
    verdict: str
    reason: str
    fate: str
    finish: str
    reward: float | None
    tokens: int
    version: int
    version_end: int
    surprisal: int | None
    """Mean of -log p of its tokens, in thousandths of a nat."""
    text: str
    lengths: str
    """A character for each piece: its length, from SHORTEST for 0; empty without tokens."""
    levels: str
    """A character for each piece: how unlikely it was, as `level` writes it."""


NAMED = ("verdict", "reason", "fate", "finish")
"""Columns that hold the place of a name in a list."""
COLUMNS = Carried._fields[: Carried._fields.index("text")]


@dataclass(frozen=True)
class Packed:
    """Blobs for a page, and what they hold."""

    blobs: dict[str, str]
    """Base64 of gzipped JSON by name: `head`, `texts-0`, `tokens-0`, `texts-1`, ..."""
    carried: int
    coloured: int
    """Rollouts among them that know their tokens' log-probabilities."""
    counts: dict[int, Counter[str]]
    """Of all rollouts, by iteration: `rollouts`, ``verdict <verdict>`` and ``fate <fate>``."""

    @property
    def total(self) -> int:
        return sum(counts["rollouts"] for counts in self.counts.values())

    @property
    def size(self) -> int:
        return size_of(self.blobs)


@dataclass
class Gathering:
    """Rollouts of the questions whose hash is below a threshold, which sinks when they become too many."""

    pieces: Pieces | None
    room: float
    """Characters of text that are held."""
    threshold: float = 1.0
    rows: list[Carried] = field(default_factory=list)
    prompts: dict[int, list[str]] = field(default_factory=dict)
    counts: dict[int, Counter[str]] = field(default_factory=dict)
    held: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        counts = self.counts.setdefault(row["iteration"], Counter())
        counts.update(("rollouts", f"verdict {row['verdict']}", f"fate {row['fate']}"))
        prompt = row["prompt_id"]
        if place_of(prompt) >= self.threshold:
            return
        self.prompts.setdefault(
            prompt, [row["task"], row["level"], row["subject"], row["question"], row["gold"]]
        )
        carried = carry(row, self.pieces)
        self.rows.append(carried)
        self.held += weight(carried)
        while self.held > self.room:
            self.narrow(0.5)

    def narrow(self, share: float) -> None:
        """Keep about `share` of the questions; at least one leaves."""
        highest = max(place_of(prompt) for prompt in self.prompts)
        self.threshold = min(self.threshold, highest) * share
        self.rows = [row for row in self.rows if place_of(row.prompt) < self.threshold]
        self.prompts = {
            prompt: about for prompt, about in self.prompts.items() if place_of(prompt) < self.threshold
        }
        self.held = sum(map(weight, self.rows))


def pack(rows: Iterable[Mapping[str, Any]], pieces: Pieces | None, budget: int = BUDGET) -> Packed:
    """What fits into `budget` characters of the rows of rollouts/.

    Args:
        pieces: of the run's tokenizer; None: nothing is known of the tokens.
    """
    gathering = Gathering(pieces, room=EXPANSION * budget)
    for row in rows:
        gathering.add(row)
    blobs = dict(_blobs(gathering))
    while gathering.rows and size_of(blobs) > budget:
        gathering.narrow(0.95 * budget / size_of(blobs))
        blobs = dict(_blobs(gathering))
    coloured = sum(bool(row.levels) for row in gathering.rows)
    return Packed(blobs, len(gathering.rows), coloured, dict(sorted(gathering.counts.items())))


def carry(row: Mapping[str, Any], pieces: Pieces | None) -> Carried:
    log_probs = row.get("log_probs") or []
    cut = pieces.cut(row["response"], row["token_ids"], log_probs) if pieces and log_probs else None
    surprisal = -sum(log_probs) / len(log_probs) if log_probs else None
    return Carried(
        iteration=row["iteration"],
        prompt=row["prompt_id"],
        answer=row["rollout_index"],
        verdict=row["verdict"],
        reason=row["reason"],
        fate=row["fate"],
        finish=row["finish"],
        reward=row["reward"],
        tokens=row["tokens"],
        version=row["policy_version"],
        version_end=row["policy_version_end"],
        surprisal=None if surprisal is None else round(1000 * surprisal),
        text=row["response"],
        lengths="".join(chr(SHORTEST + length) for length, _ in cut or ()),
        levels="".join(level(log_prob) for _, log_prob in cut or ()),
    )


def level(log_prob: float) -> str:
    """A log-probability in nats as one character, from which its probability follows to two percent points.

    Level n stands for -(n / LEVELS_PER_ROOT)^2: fine where tokens are likely, coarse where they are not.
    """
    root = round(LEVELS_PER_ROOT * math.sqrt(max(0.0, -log_prob)))
    return chr(LOWEST + min(HIGHEST_LEVEL, root))


def place_of(prompt: int) -> float:
    """A hash of a prompt's number in [0, 1)."""
    return zlib.crc32(str(prompt).encode()) / 2**32


def weight(row: Carried) -> int:
    return OVERHEAD + len(row.text) + len(row.lengths) + len(row.levels)


def size_of(blobs: Mapping[str, str]) -> int:
    return sum(map(len, blobs.values()))


def _blobs(gathering: Gathering) -> Iterator[tuple[str, str]]:
    rows = gathering.rows
    yield "head", _compress(_head(gathering))
    for number, start in enumerate(range(0, len(rows), CHUNK)):
        part = rows[start : start + CHUNK]
        yield f"texts-{number}", _compress([row.text for row in part])
        if any(row.levels for row in part):
            yield f"tokens-{number}", _compress([[row.lengths, row.levels] for row in part])


def _head(gathering: Gathering) -> dict[str, Any]:
    """Everything but the texts; browser.js reads it."""
    places = {prompt: place for place, prompt in enumerate(gathering.prompts)}
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in gathering.rows] for name in COLUMNS}
    columns["prompt"] = [places[prompt] for prompt in columns["prompt"]]
    names = {name: sorted(set(columns[name])) for name in NAMED}
    for name in NAMED:
        columns[name] = _numbered(columns[name], names[name])
    return {
        "chunk": CHUNK,
        "lowest": LOWEST,
        "shortest": SHORTEST,
        "levels_per_root": LEVELS_PER_ROOT,
        "names": names,
        "columns": columns,
        "prompts": [[prompt, *about] for prompt, about in gathering.prompts.items()],
    }


def _numbered(values: Sequence[str], names: Sequence[str]) -> list[int]:
    place: Callable[[str], int] = {name: place for place, name in enumerate(names)}.__getitem__
    return [place(value) for value in values]


def _compress(value: Any) -> str:
    written = json.dumps(value, separators=(",", ":")).encode("ascii")
    return base64.b64encode(gzip.compress(written, 6, mtime=0)).decode("ascii")
