"""What cannot work in the settings of a task, known before a row is read."""

from collections.abc import Iterator

from expert_iteration.config import (
    MIXTURE,
    Member,
    PromptConfig,
    TaskConfig,
    members_of,
)
from expert_iteration.data.demonstrations import STYLES_OF_TASKS
from expert_iteration.data.readers import READERS
from expert_iteration.grading.styles import INSTRUCTION_STYLE

MIXTURE_KEYS = ("name", "max_tokens", "members")
"""What a mixture decides for its members; everything else they decide themselves."""


def task_problems(task: TaskConfig) -> Iterator[str]:
    """One line for each thing that cannot work: keys, values and the remedy."""
    mixed = task.name == MIXTURE
    if mixed != bool(task.members):
        yield (
            f"task.name ({task.name}) and task.members ({', '.join(task.members) or 'none'}) do not agree: "
            f"the name of a task with members is {MIXTURE!r}, and a mixture needs members."
        )
        return
    if mixed:
        yield from _mixture_problems(task)
    for member in members_of(task):
        yield from _dataset_problems(member)
        yield from _prompt_problems(f"{member.key}.prompt", member.dataset.prompt)


def _mixture_problems(task: TaskConfig) -> Iterator[str]:
    usual, first = TaskConfig(), next(iter(task.members))
    for key in vars(usual):
        if key not in MIXTURE_KEYS and getattr(task, key) != getattr(usual, key):
            yield (
                f"task.{key} is not read in a mixture; set task.members.{first}.{key}, and so for the others."
            )


def _dataset_problems(member: Member) -> Iterator[str]:
    key, _, dataset = member
    if dataset.name not in READERS:
        yield f"{key}.name ({dataset.name}) is not one of {', '.join(READERS)}."
    if dataset.weight <= 0:
        yield f"{key}.weight ({dataset.weight:g}) must be above 0; leave the member out instead."
    if not 0 < dataset.held_out < 1:
        yield f"{key}.held_out ({dataset.held_out:g}) must be between 0 and 1, such as 0.1."


def _prompt_problems(key: str, prompt: PromptConfig) -> Iterator[str]:
    if not prompt.template:
        yield f"{key}.template is empty; choose a prompt by name, such as task/prompt=r1_zero."
    if prompt.style not in STYLES_OF_TASKS:
        yield f"{key}.style ({prompt.style}) is not one of {', '.join(STYLES_OF_TASKS)}."
    if prompt.system is not None and not prompt.chat:
        yield (
            f"{key}.system needs {key}.chat=true (it is false): only a chat has a system message. "
            "Without one, put the text into the template."
        )
    if prompt.few_shot is not None and prompt.style == INSTRUCTION_STYLE:
        yield f"{key}.few_shot needs worked responses, but nobody writes them for the style {prompt.style}."
    if "" in prompt.stop:
        yield f"{key}.stop holds an empty string, which would end every response at once; remove it."
