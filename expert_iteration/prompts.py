"""Checked rows to prompts: rendered, tokenised, and put in the order in which a run visits them."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from itertools import compress
from typing import TYPE_CHECKING, cast

from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.data.loading import Part, first_of, read_task
from expert_iteration.data.order import Deal, Passes
from expert_iteration.data.readers import Example
from expert_iteration.data.rendering import Renderer
from expert_iteration.data.report import DataReport, PartReport
from expert_iteration.data.sources import EVALUATION
from expert_iteration.types import Prompt, Tally, Ticket

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class PromptSet:
    """The prompts of one split, and what was left out on the way."""

    prompts: tuple[Prompt, ...]
    rows: int
    too_long: int
    """Prompts that leave no room for `sampling.max_tokens` in `model.max_length`."""
    dropped: int = 0
    """Rows that cannot be used."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """In a mixture, how often each task is visited relative to the others."""

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class Data:
    """Training and held-out prompts; no question is in both."""

    train: PromptSet
    held_out: PromptSet
    report: DataReport
    hash: str
    """sha256 over the rows of both splits that became prompts, in order: equal for equal data."""

    @property
    def left_out(self) -> Tally:
        """What never became a prompt, for the books of the run."""
        return Counter(
            train_rows=self.train.rows,
            train_rows_dropped=self.train.dropped,
            train_prompts_too_long=self.train.too_long,
            evaluation_rows=self.held_out.rows,
            evaluation_rows_dropped=self.held_out.dropped,
            evaluation_prompts_too_long=self.held_out.too_long,
        )


class PromptOrder:
    """Which prompt each visit of a run draws: a function of (seed, visit) alone.

    One dataset is gone through in shuffled passes: visit `group_id` belongs to pass
    `group_id // len(prompts)`, and within a pass every prompt comes once. In a mixture visits are dealt to
    the members first (`Deal`), and each member goes through passes of its own. So a cursor is one number,
    and a resumed run draws what the straight one would have.
    """

    def __init__(self, prompts: PromptSet, groups_per_iteration: int, seed: int) -> None:
        self._groups_per_iteration = groups_per_iteration
        by_task: dict[str, list[Prompt]] = defaultdict(list)
        for prompt in prompts.prompts:
            by_task[prompt.task].append(prompt)
        self._members = list(by_task.values())
        # a run of one dataset draws the order it would draw if there were no mixtures
        seeds = [f"{seed}/{name}" if prompts.weights else f"{seed}" for name in by_task]
        self._deal = Deal([prompts.weights.get(name, 1.0) for name in by_task])
        self._passes = [Passes(len(own), text) for own, text in zip(self._members, seeds, strict=True)]

    def ticket(self, group_id: int) -> Ticket:
        member, visit = self._deal.turn(group_id)
        prompt = self._members[member][self._passes[member].position(visit)]
        return Ticket(group_id, group_id // self._groups_per_iteration + 1, prompt)


def load_data(config: RunConfig, tokenizer: "PreTrainedTokenizerFast") -> Data:
    """Both splits of the task.

    Raises:
        ConfigError: data or template is missing, rows are bad and that is not allowed, nothing is left to
            ask, or a training question is also in the evaluation set.
    """
    parts = read_task(config)
    train = [*_render_all(config, parts.train, tokenizer, limit=None)]
    held_out = [*_render_all(config, parts.evaluation, tokenizer, config.eval.limit)]
    for rendered in (*([one] for one in train), held_out):
        if not any(one.prompts for one in rendered):
            raise ConfigError(_nothing_left(config, rendered))
    report = DataReport([PartReport(one.part, len(one.prompts), one.too_long) for one in (*train, *held_out)])
    return Data(_joined(train), _joined(held_out), report, _hash((*train, *held_out)))


@dataclass(frozen=True)
class _Rendered:
    """The prompts of one part, and the examples that they ask, one each."""

    part: Part
    prompts: tuple[Prompt, ...]
    examples: tuple[Example, ...]
    too_long: int


def _render_all(
    config: RunConfig, parts: Iterable[Part], tokenizer: "PreTrainedTokenizerFast", limit: int | None
) -> Iterator[_Rendered]:
    """Prompts of the first `limit` examples of each part; prompt ids count on over the parts."""
    room = config.model.max_length - config.sampling.max_tokens
    first_id = 0
    for part in parts:
        examples = part.examples[:limit]
        hint = config.rationalisation.hint if config.rationalisation.enabled else None
        prompts = _render(part, examples, tokenizer, first_id, hint)
        fits = [len(prompt.hinted_token_ids or prompt.token_ids) <= room for prompt in prompts]
        yield _Rendered(
            part, tuple(compress(prompts, fits)), tuple(compress(examples, fits)), fits.count(False)
        )
        first_id += part.numbers


def _render(
    part: Part,
    examples: Sequence[Example],
    tokenizer: "PreTrainedTokenizerFast",
    first_id: int,
    hint: str | None,
) -> list[Prompt]:
    renderer, asked = Renderer(part.member, tokenizer), part.member.dataset.prompt
    texts = [renderer.prompt(example.question) for example in examples]
    token_ids = _encoded(tokenizer, texts)
    hinted = _hinted(hint, renderer, examples, tokenizer)
    return [
        Prompt(
            first_id + example.number,
            example.question,
            example.gold,
            text,
            tuple(ids),
            style=asked.style,
            task=part.member.name,
            stop=tuple(asked.stop),
            level=example.level,
            subject=example.subject,
            demonstration=renderer.response(example, text),
            hinted_token_ids=with_hint,
        )
        for example, text, ids, with_hint in zip(examples, texts, token_ids, hinted, strict=True)
    ]


def _hinted(
    hint: str | None,
    renderer: Renderer,
    examples: Sequence[Example],
    tokenizer: "PreTrainedTokenizerFast",
) -> list[tuple[int, ...] | None]:
    """The same prompts with the right answer after the question; None when nobody asks for them."""
    if hint is None:
        return [None] * len(examples)
    texts = [renderer.prompt(one.question + hint.replace("{gold}", one.gold)) for one in examples]
    return [tuple(ids) for ids in _encoded(tokenizer, texts)]


def _encoded(tokenizer: "PreTrainedTokenizerFast", texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    batch = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
    return cast(list[list[int]], batch["input_ids"])


def _joined(rendered: Sequence[_Rendered]) -> PromptSet:
    members = [one.part.member for one in rendered]
    return PromptSet(
        tuple(prompt for one in rendered for prompt in one.prompts),
        rows=sum(one.part.rows for one in rendered),
        too_long=sum(one.too_long for one in rendered),
        dropped=sum(len(one.part.dropped) for one in rendered),
        weights={name: dataset.weight for _, name, dataset in members} if len(members) > 1 else {},
    )


def _hash(rendered: Iterable[_Rendered]) -> str:
    digest = hashlib.sha256()
    for one in rendered:
        for example in one.examples:
            row = [one.part.split, one.part.member.name, *astuple(replace(example, place=""))]
            digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _nothing_left(config: RunConfig, rendered: Sequence[_Rendered]) -> str:
    whole, part = _joined(rendered), rendered[0].part
    dropped = [row.text for one in rendered for row in one.part.dropped]
    found = f", {len(dropped)} cannot be used ({first_of(dropped)})" if dropped else ""
    share = f", or raise {part.member.key}.held_out ({part.member.dataset.held_out:g})"
    return (
        f"no {part.split} prompt is left of {part.source} ({part.member.key}): {whole.rows} rows{found}, "
        f"{whole.too_long} prompts are longer than model.max_length ({config.model.max_length}) less "
        f"sampling.max_tokens ({config.sampling.max_tokens}). Mend the rows, raise the one, lower the other"
        f"{share if part.split == EVALUATION else ''}."
    )
