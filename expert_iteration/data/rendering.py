"""Puts a question into the prompt of its dataset: template, worked examples, chat turns."""

from pathlib import Path
from typing import TYPE_CHECKING

from expert_iteration.config import ConfigError, FieldsConfig, Member
from expert_iteration.data.demonstrations import demonstration
from expert_iteration.data.files import FORMATS, read_file
from expert_iteration.data.readers import READERS, BadRow, Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parents[1] / "templates"
SLOT = "{question}"


class Renderer:
    """From an example to the text that the model is given, and to the response it would have liked."""

    def __init__(self, member: Member, tokenizer: "PreTrainedTokenizerFast") -> None:
        """Read the template and the worked examples.

        Raises:
            ConfigError: either is missing or unusable, or a chat is asked of a tokenizer without a template.
        """
        key, self._config = f"{member.key}.prompt", member.dataset.prompt
        if self._config.chat and not tokenizer.chat_template:
            raise ConfigError(f"{key}.chat is true, but the tokenizer has no chat template; set it to false.")
        self._tokenizer = tokenizer
        template = _read_template(key, self._config.template)
        self._opening, self._turn = _parted(template)
        self._examples = _read_examples(key, self._config.few_shot)

    def prompt(self, question: str) -> str:
        return self._chat(question) if self._config.chat else self._raw(question)

    def response(self, example: Example, after: str) -> str | None:
        """The worked response as it goes on from the prompt `after`; None when there is none."""
        written = demonstration(self._config.style, example)
        return None if written is None else _gap(after) + written

    def _raw(self, question: str) -> str:
        shown = []
        for example in self._examples:
            asked = self._fill(example.question) + self._config.prefix
            shown.append(f"{asked}{self.response(example, asked) or ''}\n\n")
        return self._opening + "".join(shown) + self._fill(question) + self._config.prefix

    def _chat(self, question: str) -> str:
        prompt = self._config
        turns = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
        for example in self._examples:
            answer = prompt.prefix + (self.response(example, prompt.prefix) or "")
            turns += [
                {"role": "user", "content": self._opening + self._fill(example.question)},
                {"role": "assistant", "content": answer},
            ]
        turns.append({"role": "user", "content": self._opening + self._fill(question)})
        text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return str(text) + prompt.prefix

    def _fill(self, question: str) -> str:
        # str.replace, not str.format: questions and templates are full of braces
        return self._turn.replace(SLOT, question)


def _parted(template: str) -> tuple[str, str]:
    """What is said once, and what is said for each question, worked examples included.

    They part at the last blank line before the question; without one, where the question's line begins.
    """
    before = template[: template.index(SLOT)]
    blank = before.rfind("\n\n")
    start = before.rfind("\n") + 1 if blank < 0 else blank + 2
    return template[:start], template[start:]


def _gap(before: str) -> str:
    """What stands between a prompt and the first word of the response."""
    return " " if before and not before[-1].isspace() else ""


def _read_template(key: str, name: str) -> str:
    """Text of a template; the newline that ends a text file is no part of it."""
    shipped = TEMPLATES / f"{name}.txt"
    path = shipped if shipped.is_file() else Path(name).expanduser()
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in TEMPLATES.glob("*.txt")))
        raise ConfigError(f"{key}.template ({name}) is no text file and not one of {known}.")
    try:
        text = path.read_text(encoding="utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{key}.template ({name}) is not UTF-8 (byte {error.start + 1}); mend it."
        ) from error
    if SLOT not in text:
        raise ConfigError(f"{key}.template ({name}) has no {SLOT} where the question belongs; write it in.")
    return text


def _read_examples(key: str, name: str | None) -> list[Example]:
    if name is None:
        return []
    path = Path(name).expanduser()
    if not path.is_file() or path.suffix not in FORMATS:
        raise ConfigError(f"{key}.few_shot ({name}) is no {', '.join(FORMATS)} file.")
    examples = []
    for line in read_file(path):
        try:
            examples.append(READERS["jsonl"](line.fields, FieldsConfig()))
        except BadRow as error:
            raise ConfigError(
                f"{key}.few_shot: {line.place}: {line.problem or error}; mend the row."
            ) from error
    return examples
