"""Make the small base model of the demo task from nothing: tokenizer, corpus, training, model card.

    python scripts/make_demo_model.py --output expert_iteration/demo/model

One CPU thread, about four minutes. The number of optimizer steps is fixed, so two runs with one seed
on one machine give the same weights.
"""

import argparse
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from rich.console import Console
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.utils.logging import disable_progress_bar

from expert_iteration.demo import MODEL_FOLDER, problems
from expert_iteration.demo.pupils import FORGETS_LAST_STEP, SLIPS, careless_solution
from expert_iteration.demo.tokenizer import VOCABULARY_SIZE, build_tokenizer, render

MAX_LENGTH = 2048
TOKENIZER_TEXTS = 4000
BATCH_SIZE = 24
BATCHES_SORTED_TOGETHER = 128
WARMUP_STEPS = 30
FINAL_RATE = 0.02
MUON_RATE, ADAMW_RATE = 0.02, 3e-3
EVALUATED, SAMPLES, MAX_NEW_TOKENS = 300, 4, 48
GREEDY = {"do_sample": False}
SAMPLED = {"do_sample": True, "temperature": 1.0, "top_k": 0, "num_return_sequences": SAMPLES}
ANSWER = re.compile(r".* </think> <answer> (\d+) </answer>")
IGNORED = -100

Optimizers: TypeAlias = list[torch.optim.Optimizer]

CARD = """# A base model that is careless on purpose

A Qwen2-shaped language model of {parameters:,} parameters (4 layers, hidden size 128, MLP 384, 4 heads
sharing 2 key-value heads, tied embeddings, bfloat16, up to {max_length} tokens) with a byte-level
tokenizer of {vocabulary} tokens. It answers the generated word problems of
`expert_iteration/demo/problems.py`, and nothing else. It is the default model of this repository because
expert iteration on it shows within minutes, on a CPU, whether the machinery works.

**Its weakness is planted.** The worked solutions it learned from were written by simulated careless pupils
(`expert_iteration/demo/pupils.py`), who on a problem of two or more steps forget the last step with
probability {forgets}, and with probability {slips} slip in one step and carry the wrong result on. So
the model knows the format and the arithmetic and imitates bad habits; expert iteration, which sees
questions and final answers only, can unlearn them. A gain on this model says that the loop learns, not
that a method would help a real model as much.

## How it was made

    python scripts/make_demo_model.py --seed {seed} --steps {steps}

One epoch over {examples:,} distinct problems, {tokens:.1f} million tokens, {seconds:.0f} CPU seconds of one
thread. Loss on the response only; Muon for the matrices, AdamW for the rest.

## Accuracy

On the first {evaluated} held-out problems, none of which is in the training data ({each} of each number of
steps; standard error about 2.7 points). Sampled: temperature 1, mean of {samples} answers per problem.

| steps | 1 | 2 | 3 | 4 | all |
|---|---|---|---|---|---|
| greedy | {greedy} |
| sampled | {sampled} |
"""


class Example(NamedTuple):
    prompt: list[int]
    response: list[int]
    """Ends with the end-of-turn token."""


def main() -> None:
    options = parse_options()
    console = Console()
    disable_progress_bar()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    corpus = problems.base_corpus(max(options.steps * BATCH_SIZE, TOKENIZER_TEXTS), options.seed)
    tokenizer = build_tokenizer((problem.question for problem in corpus[:TOKENIZER_TEXTS]), MAX_LENGTH)
    examples = encode(tokenizer, corpus[: options.steps * BATCH_SIZE], random.Random(options.seed))
    model = new_model(tokenizer)
    started = time.process_time()
    fit(model, examples, random.Random(options.seed), console)
    seconds = time.process_time() - started
    model.bfloat16().save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    card = describe(options, examples, seconds)
    (options.output / "README.md").write_text(card)
    console.print(*card.splitlines()[-4:], f"written to {options.output}", sep="\n")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the base model of the demo task.")
    parser.add_argument("--output", type=Path, default=MODEL_FOLDER, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1400, help=f"optimizer steps of {BATCH_SIZE} examples")
    return parser.parse_args()


def encode(
    tokenizer: PreTrainedTokenizerFast, corpus: list[problems.Problem], rng: random.Random
) -> list[Example]:
    prompts = [render(tokenizer, problem.question) for problem in corpus]
    responses = [careless_solution(problem, rng) + tokenizer.eos_token for problem in corpus]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    response_ids = tokenizer(responses, add_special_tokens=False)["input_ids"]
    return [Example(*pair) for pair in zip(prompt_ids, response_ids, strict=True)]


def new_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def fit(model: Qwen2ForCausalLM, examples: list[Example], rng: random.Random, console: Console) -> None:
    """One epoch, with the loss on the response tokens."""
    optimizers, schedulers = new_optimizers(model, len(examples) // BATCH_SIZE)
    model.train()
    started, recent = time.process_time(), 0.0
    for step, batch in enumerate(batches(examples, rng), 1):
        loss = response_loss(model, batch)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
        recent += loss.item() / 50
        if step % 50 == 0:
            console.print(f"step {step:5d}  {time.process_time() - started:4.0f} s  loss {recent:.3f}")
            recent = 0.0


def new_optimizers(model: Qwen2ForCausalLM, steps: int) -> tuple[Optimizers, list[LambdaLR]]:
    """Muon for the matrices inside the layers, AdamW for embeddings, norms and biases; one schedule."""
    matrices = [p for p in model.model.layers.parameters() if p.dim() == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    optimizers: Optimizers = [
        torch.optim.Muon(matrices, lr=MUON_RATE, momentum=0.95, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=ADAMW_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]

    def rate(step: int) -> float:
        """Linear warm-up, constant, then linear decay over the second half."""
        return min(1.0, (step + 1) / WARMUP_STEPS, max(FINAL_RATE, 2 * (1 - step / steps)))

    return optimizers, [LambdaLR(optimizer, rate) for optimizer in optimizers]


def batches(examples: list[Example], rng: random.Random) -> Iterator[list[Example]]:
    """Every example once, in batches of similar lengths."""
    shuffled = rng.sample(examples, len(examples))
    cut: list[list[Example]] = []
    for pool in chunks(shuffled, BATCH_SIZE * BATCHES_SORTED_TOGETHER):
        cut.extend(chunks(sorted(pool, key=lambda e: len(e.prompt) + len(e.response)), BATCH_SIZE))
    rng.shuffle(cut)
    yield from cut


def chunks(examples: list[Example], size: int) -> Iterable[list[Example]]:
    return (examples[start : start + size] for start in range(0, len(examples), size))


def response_loss(model: Qwen2ForCausalLM, batch: list[Example]) -> torch.Tensor:
    """Mean cross-entropy over the response tokens, in nats; logits are computed for those only."""
    length = max(len(prompt) + len(response) for prompt, response in batch)
    tokens_BT = torch.full((len(batch), length), 0)
    labels_BT = torch.full((len(batch), length), IGNORED)
    for row, (prompt, response) in enumerate(batch):
        end = len(prompt) + len(response)
        tokens_BT[row, :end] = torch.tensor(prompt + response)
        labels_BT[row, len(prompt) : end] = torch.tensor(response)
    # Right padding needs no mask: causal attention never looks at it from a response token.
    hidden_BTD = model.model(input_ids=tokens_BT, use_cache=False).last_hidden_state
    predicted_BT = labels_BT[:, 1:] != IGNORED
    logits_NV = model.lm_head(hidden_BTD[:, :-1][predicted_BT])
    return cross_entropy(logits_NV, labels_BT[:, 1:][predicted_BT])


def describe(options: argparse.Namespace, examples: list[Example], seconds: float) -> str:
    """The model card, measured on the saved folder."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(options.output, padding_side="left")
    model = Qwen2ForCausalLM.from_pretrained(options.output, dtype=torch.float32)
    return CARD.format(
        parameters=model.num_parameters(),
        max_length=MAX_LENGTH,
        vocabulary=len(tokenizer),
        forgets=FORGETS_LAST_STEP,
        slips=SLIPS,
        seed=options.seed,
        steps=options.steps,
        examples=len(examples),
        tokens=sum(len(prompt) + len(response) for prompt, response in examples) / 1e6,
        seconds=seconds,
        evaluated=EVALUATED,
        each=EVALUATED // 4,
        samples=SAMPLES,
        greedy=accuracy_row(model, tokenizer, GREEDY),
        sampled=accuracy_row(model, tokenizer, SAMPLED),
    )


def accuracy_row(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, sampling: dict[str, Any]
) -> str:
    """Accuracy in percent for 1, 2, 3 and 4 steps and over all, as cells of a table."""
    asked = problems.held_out(EVALUATED)
    texts = generate(model, tokenizer, [problem.question for problem in asked], sampling)
    answers_each = len(texts) // len(asked)
    total: Counter[int | str] = Counter()
    right: Counter[int | str] = Counter()
    for index, text in enumerate(texts):
        problem = asked[index // answers_each]
        match = ANSWER.fullmatch(text)
        correct = match is not None and int(match[1]) == problem.answer
        for column in (problem.difficulty, "all"):
            total[column] += 1
            right[column] += correct
    return " | ".join(f"{100 * right[column] / total[column]:.1f}" for column in (1, 2, 3, 4, "all"))


@torch.inference_mode()
def generate(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    questions: list[str],
    sampling: dict[str, Any],
) -> list[str]:
    """Responses in the order of the questions, those to one question next to each other."""
    prompts = tokenizer(
        [render(tokenizer, question) for question in questions],
        add_special_tokens=False,
        padding=True,
        return_tensors="pt",
        return_token_type_ids=False,
    )
    tokens_BT = model.generate(**prompts, max_new_tokens=MAX_NEW_TOKENS, **sampling)
    responses_BT = tokens_BT[:, prompts["input_ids"].shape[1] :]
    return tokenizer.batch_decode(responses_BT, skip_special_tokens=True)


if __name__ == "__main__":
    main()
