"""Datasets to prompts: rows are read, rendered with the template, tokenised and put in order."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expert_iteration.config import ConfigError, RunConfig, TaskConfig
from expert_iteration.demo import problems
from expert_iteration.grading.styles import last_boxed
from expert_iteration.types import Prompt, Tally, Ticket

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parent / "templates"
DEMO_TRAINING_SET = 8192
DEMO_HELD_OUT = 400

DEMONSTRATIONS = {
    "r1_zero": " {reasoning} </think> <answer> {gold} </answer>",
    "answer_tag": "{reasoning} <answer> {gold} </answer>",
    "boxed": "{reasoning}\nThe answer is \\boxed{{{gold}}}.",
    "gsm8k": "{reasoning}\n#### {gold}",
}
"""How a worked solution is written in each answer style."""


@dataclass(frozen=True)
class Example:
    """One row of a dataset, whatever its field names were."""

    question: str
    gold: str
    reasoning: str
    level: str = ""


@dataclass(frozen=True)
class PromptSet:
    """The prompts of one split, and what was left out on the way."""

    prompts: tuple[Prompt, ...]
    rows: int
    too_long: int
    """Prompts that leave no room for `sampling.max_tokens` in `model.max_length`."""

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class Data:
    """Training and held-out prompts; no question is in both."""

    train: PromptSet
    held_out: PromptSet

    @property
    def left_out(self) -> Tally:
        """What never became a prompt, for the books of the run."""
        return Counter(
            train_rows=self.train.rows,
            train_prompts_too_long=self.train.too_long,
            evaluation_rows=self.held_out.rows,
            evaluation_prompts_too_long=self.held_out.too_long,
        )


class PromptOrder:
    """Which prompt each visit of a run draws: shuffled passes, a function of (seed, visit) alone.

    Visit `group_id` belongs to pass `group_id // len(prompts)`; within a pass every prompt comes
    once. So a cursor is one number, and a resumed run draws what the straight one would have.
    """

    def __init__(self, prompts: PromptSet, groups_per_iteration: int, seed: int) -> None:
        self._prompts = prompts.prompts
        self._groups_per_iteration = groups_per_iteration
        self._seed = seed
        self._pass_number = -1
        self._order: list[int] = []

    def ticket(self, group_id: int) -> Ticket:
        pass_number, position = divmod(group_id, len(self._prompts))
        if pass_number != self._pass_number:
            self._order = list(range(len(self._prompts)))
            random.Random(f"{self._seed}/{pass_number}").shuffle(self._order)
            self._pass_number = pass_number
        prompt = self._prompts[self._order[position]]
        return Ticket(group_id, group_id // self._groups_per_iteration + 1, prompt)


def load_data(config: RunConfig, tokenizer: "PreTrainedTokenizerFast") -> Data:
    """Both splits of the task.

    Raises:
        ConfigError: data or template is missing, a row lacks a field, nothing is left to ask, or a
            training question is also in the evaluation set.
    """
    data = Data(
        load_prompts(config, tokenizer, "train", config.task.limit),
        load_prompts(config, tokenizer, "evaluation", config.eval.limit),
    )
    for name, prompts in (("training", data.train), ("evaluation", data.held_out)):
        if not prompts.prompts:
            raise ConfigError(
                f"no {name} prompt is left of {prompts.rows} rows ({prompts.too_long} are too long for "
                "model.max_length less sampling.max_tokens); raise the one or lower the other."
            )
    held_out = {prompt.question for prompt in data.held_out.prompts}
    leaked = [prompt.id for prompt in data.train.prompts if prompt.question in held_out]
    if leaked:
        raise ConfigError(
            f"{len(leaked)} training questions are also in the evaluation set (rows {leaked[:5]} of the "
            "training set, counted from 0); remove them from one of the two."
        )
    return data


def load_prompts(
    config: RunConfig, tokenizer: "PreTrainedTokenizerFast", split: str, limit: int | None
) -> PromptSet:
    """The first `limit` rows of `split` ("train" or "evaluation") as prompts.

    Raises:
        ConfigError: the data or the template is missing, or a row lacks a field.
    """
    render = Renderer(config.task, tokenizer)
    room = config.model.max_length - config.sampling.max_tokens
    prompts, rows, too_long = [], 0, 0
    for row_number, example in enumerate(_examples(config, split)):
        if row_number == limit:
            break
        rows += 1
        text = render.prompt(example.question)
        token_ids = tuple(tokenizer.encode(text, add_special_tokens=False))
        if len(token_ids) > room:
            too_long += 1
            continue
        demonstration = render.demonstration(example)
        prompts.append(
            Prompt(row_number, example.question, example.gold, text, token_ids, example.level, demonstration)
        )
    return PromptSet(tuple(prompts), rows, too_long)


class Renderer:
    """Puts a question into the task's template."""

    def __init__(self, task: TaskConfig, tokenizer: "PreTrainedTokenizerFast") -> None:
        path = TEMPLATES / f"{task.template}.txt"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in TEMPLATES.glob("*.txt")))
            raise ConfigError(f"task.template ({task.template}) is not one of {known}.")
        if task.chat and not tokenizer.chat_template:
            raise ConfigError(
                "task.chat is true, but the tokenizer has no chat template; set task.chat=false."
            )
        self._template = path.read_text(encoding="utf-8")
        self._task = task
        self._tokenizer = tokenizer

    def prompt(self, question: str) -> str:
        # str.replace, not str.format: questions and templates are full of braces
        text = self._template.replace("{question}", question)
        if self._task.chat:
            turns = [{"role": "user", "content": text}]
            text = str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        return text + self._task.prefix

    def demonstration(self, example: Example) -> str:
        return DEMONSTRATIONS[self._task.style].format(reasoning=example.reasoning, gold=example.gold)


def _examples(config: RunConfig, split: str) -> Iterator[Example]:
    task = config.task
    if task.name not in READERS:
        raise ConfigError(f"task.name ({task.name}) is not one of {', '.join(READERS)}.")
    return READERS[task.name](config, split)


def _demo(config: RunConfig, split: str) -> Iterator[Example]:
    if split == "train":
        drawn: Iterable[problems.Problem] = problems.train(
            config.task.limit or DEMO_TRAINING_SET, config.seed
        )
    else:
        drawn = problems.held_out(DEMO_HELD_OUT)
    for problem in drawn:
        steps = "; ".join(problem.steps)
        yield Example(problem.question, str(problem.answer), steps, f"{problem.difficulty}_steps")


def _gsm8k(config: RunConfig, split: str) -> Iterator[Example]:
    for place, row in _rows(config.task, split):
        reasoning, mark, gold = _field(row, "answer", place).rpartition("####")
        if not mark:
            raise ConfigError(
                f"{place}: the answer has no '####'; every GSM8K answer ends in '#### <number>'."
            )
        question = _field(row, "question", place)
        yield Example(question, gold.strip().replace(",", ""), _without_calculator(reasoning.strip()))


def _math(config: RunConfig, split: str) -> Iterator[Example]:
    for place, row in _rows(config.task, split):
        solution = _field(row, "solution", place)
        gold = row.get("answer") or last_boxed(solution)
        if not gold:
            raise ConfigError(f"{place}: neither an answer nor a \\boxed{{}} in the solution.")
        level = str(row.get("level", "")).removeprefix("Level ")
        yield Example(_field(row, "problem", place), str(gold), solution, f"level_{level}" if level else "")


READERS: dict[str, Callable[[RunConfig, str], Iterator[Example]]] = {
    "demo": _demo,
    "gsm8k": _gsm8k,
    "math": _math,
}


def _without_calculator(reasoning: str) -> str:
    """GSM8K's solutions carry `<<48/2=24>>` marks for a calculator; people do not write them."""
    kept = [part.rpartition(">>")[2] for part in reasoning.split("<<")]
    return "".join(kept)


def _field(row: Mapping[str, Any], name: str, place: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{place}: field {name!r} is {value!r}, not a text; mend or remove the row.")
    return value


def _rows(task: TaskConfig, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where it stands, row) from a local JSONL file or from the hub."""
    name = task.train if split == "train" else task.evaluation
    if task.path is not None:
        return _local_rows(_find_file(Path(task.path), name))
    return _hub_rows(task, name)


def _find_file(folder: Path, name: str) -> Path:
    """`name`.jsonl, or the one file whose name starts so (train4500.jsonl is the `train` of MATH)."""
    exact = folder / f"{name}.jsonl"
    found = [exact] if exact.is_file() else sorted(folder.glob(f"{name}*.jsonl"))
    if len(found) == 1:
        return found[0]
    there = ", ".join(sorted(path.stem for path in folder.glob("*.jsonl"))) or "no JSONL file"
    raise ConfigError(
        f"task.path ({folder}) has {len(found)} files for {name}*.jsonl of: {there}; name them with "
        "task.train and task.evaluation."
    )


def _local_rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ConfigError(
                    f"{file}:{number}: not JSON ({error.msg}); mend or remove the row."
                ) from error
            yield f"{file}:{number}", row


def _hub_rows(task: TaskConfig, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if task.hub_id is None:
        raise ConfigError(f"task.name ({task.name}) needs task.path or task.hub_id.")
    from datasets import load_dataset

    rows = load_dataset(task.hub_id, task.hub_config, split=split, revision=task.hub_revision)
    for number, row in enumerate(rows):
        yield f"{task.hub_id}[{split}]:{number}", row
