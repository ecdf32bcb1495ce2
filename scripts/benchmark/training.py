"""Tokens per second of the learner against a tight hand-written loop, on the same rows.

    python scripts/benchmark/training.py
    python scripts/benchmark/training.py --model Qwen/Qwen2.5-Math-1.5B --device cuda --autocast \
        --rows 64 --min-length 200 --max-length 1200 --micro-batch-tokens 16384 --peak-tflops 989

The loop has the same model, micro-batches and AdamW, but its batches are padded beforehand and it
reports its loss alone. Both take turns, round by round, so that a busy machine slows them alike; the
ratio is the median over the rounds. The share of the peak counts 6 FLOPs per weight and token, and 12
per layer, hidden unit and attended position.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeAlias

import torch
from rich.console import Console
from tensordict import TensorDict
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from expert_iteration.batching import (
    ADVANTAGE,
    POLICY_VERSION,
    RESPONSE,
    SAMPLED,
    TOKENS,
    MicroBatch,
    micro_batches,
)
from expert_iteration.config import AlgorithmConfig, ModelConfig, OptimizerConfig, RunConfig
from expert_iteration.demo import MODEL_FOLDER
from expert_iteration.learner import Learner
from expert_iteration.model import load_model

Step: TypeAlias = Callable[[int], float]
"""Take the optimizer step of this number; returns its loss."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=str(MODEL_FOLDER), help="folder or hub id")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=16, help="sequences per optimizer step")
    parser.add_argument("--min-length", type=int, default=60, help="tokens of the shortest sequence")
    parser.add_argument("--max-length", type=int, default=90)
    parser.add_argument("--prompt-share", type=float, default=0.5)
    parser.add_argument("--micro-batch-tokens", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps per round")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--autocast", action="store_true", help="compute in bfloat16")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--peak-tflops", type=float, help="of the device, to print the share that is used")
    return parser.parse_args()


def random_rows(arguments: argparse.Namespace, vocabulary: int, seed: int) -> list[TensorDict]:
    generator = torch.Generator().manual_seed(seed)
    bounds = arguments.min_length, arguments.max_length + 1
    rows = []
    for length in torch.randint(*bounds, (arguments.rows,), generator=generator).tolist():
        mask = torch.arange(length) >= max(1, int(length * arguments.prompt_share))
        tokens = torch.randint(vocabulary, (length,), generator=generator)
        earned = {ADVANTAGE: torch.tensor(1.0), POLICY_VERSION: torch.tensor(0)}
        rows.append(TensorDict({TOKENS: tokens, RESPONSE: mask, SAMPLED: torch.zeros(length), **earned}))
    return rows


def learner_step(learner: Learner, steps: Sequence[list[TensorDict]]) -> Step:
    return lambda number: learner.learn(steps[number], progress=0.0)["loss/total"]


def handwritten_step(model: PreTrainedModel, config: RunConfig, steps: Sequence[list[MicroBatch]]) -> Step:
    optimizer = torch.optim.AdamW(
        model.parameters(), config.optimizer.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )

    def loss_of(batch: MicroBatch, tokens: int) -> torch.Tensor:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=config.model.autocast):
            hidden_BTH = model.model(input_ids=batch.tokens_BT, use_cache=False).last_hidden_state
            logits_NV = model.lm_head(hidden_BTH[batch.row_N, batch.position_N - 1])
        targets_N = batch.tokens_BT[batch.row_N, batch.position_N]
        return cross_entropy(logits_NV.float(), targets_N, reduction="sum") / tokens

    def step(number: int) -> float:
        tokens = sum(len(batch.row_N) for batch in steps[number])
        total = torch.zeros((), device=model.device)
        for batch in steps[number]:
            loss = loss_of(batch, tokens)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return total.item()

    return step


def seconds_of(step: Step, steps: int) -> float:
    start = time.perf_counter()
    for number in range(steps):
        step(number)
    return time.perf_counter() - start


def take_turns(ours: Step, theirs: Step, steps: int, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each round of both, after a warm-up that checks that they learn the same."""
    for number in range(steps):
        torch.testing.assert_close(ours(number), theirs(number), rtol=1e-2, atol=0.0)
    turns = [(seconds_of(ours, steps), seconds_of(theirs, steps)) for _ in range(rounds)]
    return [mine for mine, _ in turns], [other for _, other in turns]


def flops_per_token(model: PreTrainedModel, length: float) -> float:
    """Of forward and backward; a token attends to half of its sequence on average."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    settings = model.config.get_text_config()
    return 6 * weights + 12 * settings.num_hidden_layers * settings.hidden_size * length / 2


def run_config(arguments: argparse.Namespace) -> RunConfig:
    model = ModelConfig(
        path=arguments.model,
        autocast=arguments.autocast,
        gradient_checkpointing=arguments.gradient_checkpointing,
    )
    optimizer = OptimizerConfig(learning_rate=1e-5)
    return RunConfig(
        micro_batch_tokens=arguments.micro_batch_tokens,
        model=model,
        optimizer=optimizer,
        algorithm=AlgorithmConfig(name="expert_iteration"),
    )


def main() -> None:
    arguments = parse_arguments()
    disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    config = run_config(arguments)
    learner = Learner(config, arguments.device)
    model = load_model(config.model, arguments.device).train()
    vocabulary = model.get_input_embeddings().weight.shape[0]
    rows = [random_rows(arguments, vocabulary, seed) for seed in range(arguments.steps)]
    batches = [
        [batch.to(model.device) for batch in micro_batches(step, config.micro_batch_tokens)] for step in rows
    ]
    ours, theirs = take_turns(
        learner_step(learner, rows),
        handwritten_step(model, config, batches),
        arguments.steps,
        arguments.rounds,
    )
    tokens = sum(len(row[TOKENS]) for step in rows for row in step)
    per_token = flops_per_token(model, tokens / len(rows) / arguments.rows)
    console = Console(highlight=False)
    for name, seconds in (("learner", ours), ("hand-written", theirs)):
        rate = tokens / median(seconds)
        share = (
            ""
            if not arguments.peak_tflops
            else f", {rate * per_token / arguments.peak_tflops / 1e12:.1%} of peak"
        )
        console.print(f"{name:12} {rate:10,.0f} tokens/s, best {tokens / min(seconds):,.0f}{share}")
    ratio = median(other / mine for mine, other in zip(ours, theirs, strict=True))
    console.print(f"learner / hand-written: {ratio:.3f}")
    if model.device.type == "cuda":
        console.print(f"peak memory of both: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
