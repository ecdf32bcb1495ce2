"""A worked solution, written down in the answer style that a task asks for."""

from expert_iteration.data.readers import Example
from expert_iteration.grading.styles import INSTRUCTION_STYLE, STYLES

_FORMS = {
    "r1_zero": "{reasoning} </think> <answer> {gold} </answer>",
    "answer_tag": "{reasoning} <answer> {gold} </answer>",
    "boxed": "{reasoning}\nThe answer is \\boxed{{{gold}}}.",
    "free": "{reasoning}\nThe answer is \\boxed{{{gold}}}.",
    "gsm8k": "{reasoning}\n#### {gold}",
}
STYLES_OF_TASKS = (*(style for style in STYLES if style in _FORMS), INSTRUCTION_STYLE)
"""What a task may ask for."""


def demonstration(style: str, example: Example) -> str | None:
    """The response that the example's author would have given, without white space around it.

    None for `INSTRUCTION_STYLE`, whose gold is a list of instructions: nobody has written responses to them.
    """
    if style == INSTRUCTION_STYLE:
        return None
    return _FORMS[style].format(reasoning=example.reasoning, gold=example.gold).strip()
