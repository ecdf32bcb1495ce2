"""What a response votes for in a majority vote: its final answer, in one spelling."""

from expert_iteration.grading.exact import normal, number, quantity
from expert_iteration.grading.styles import extract
from expert_iteration.grading.units import PERCENT


def vote(style: str, response: str) -> str | None:
    r"""The final answer where the style wants it; None without one.

    Equal numbers are one vote (``0.5`` and ``\frac12``, ``1,000`` and ``1000``), and so are a number with and
    without its unit, which answers often leave out; a percentage is another number. What takes algebra to
    be found equal counts as different, and an answer that only math-verify finds in free prose casts no
    vote.

    Raises:
        KeyError: the style is not one of `STYLES`.
    """
    found = extract(style, response).answer
    if found is None:
        return None
    text = normal(found)
    parts = quantity(text)
    value = number(parts.body)
    if value is None:
        return text or None
    return f"{value}%" if parts.unit == PERCENT else str(value)
