"""Words for people: numbers in few characters, and foreign text that cannot do harm."""

import math
from collections.abc import Iterable, Mapping

LABELS = {
    "rollout/tokens_per_second": "{:,.0f} tok/s",
    "rollout/success": "success {:.1%}",
    "rollout/length": "length {:,.0f}",
    "selection/kept": "kept {:,.0f}",
    "selection/kept_share": "kept share {:.1%}",
    "loss/total": "loss {:.4f}",
    "eval/greedy": "greedy {:.1%}",
    "eval/pass@1": "sampled {:.1%}",
    "eval/format": "format {:.1%}",
    "policy/version": "policy v{:.0f}",
}
"""How the metrics that people watch are written, in the order in which they are shown."""


def one_line(text: str, limit: int | None = None) -> str:
    r"""`text` with everything that does not print written as an escape such as ``\n`` or ``\x1b``.

    Escape sequences, line breaks and bidirectional overrides in a model's output can neither move
    the cursor nor pretend to be a line of ours. Longer than `limit` characters: cut, with dots.
    """
    cut = text if limit is None or len(text) <= limit else text[: limit - 3] + "..."
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in cut
    )


def duration(seconds: float) -> str:
    """`h:mm:ss`, rounded down."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def describe(metrics: Mapping[str, float], keys: Iterable[str] = LABELS) -> list[str]:
    """The finite ones of `metrics` that have a label, as words."""
    present = [key for key in keys if key in LABELS and math.isfinite(metrics.get(key, math.nan))]
    return [LABELS[key].format(metrics[key]) for key in present]
