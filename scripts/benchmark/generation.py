"""Tokens per second of our engine beside vLLM's own offline `LLM.generate`, in one process.

Both are given the same prompts, sampling and seeds, in turn, so that a busy machine slows both. The engine
is measured twice: with all groups submitted at once, and one by one, as they arrive in asynchronous runs.

    python scripts/benchmark/generation.py --model expert_iteration/demo/model
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import wait

from expert_iteration.choices import Device, Dtype
from expert_iteration.config import ModelConfig, PlacementConfig
from expert_iteration.engine import Engine
from expert_iteration.request import Request, sampling_params
from expert_iteration.vllm_start import engine_args

Measurement = Callable[[list[Request]], int]
"""Generates for requests; returns the number of response tokens."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", required=True, help="folder or hub id")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=60)
    parser.add_argument("--n", type=int, default=8, help="answers per prompt")
    parser.add_argument("--max-tokens", type=int, default=48, help="length of every answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stop", default="", help="a stop string, which makes vLLM decode as it goes")
    parser.add_argument("--no-seeds", action="store_true", help="draw from the engine's seed instead")
    parser.add_argument("--dtype", choices=[dtype.value for dtype in Dtype], default="bfloat16")
    parser.add_argument("--device", choices=[device.value for device in Device], default="cpu")
    return parser.parse_args()


def make_requests(args: argparse.Namespace) -> list[Request]:
    rng = random.Random(0)
    return [
        Request(
            prompt=tuple(rng.randrange(3, 250) for _ in range(args.prompt_tokens)),
            n=args.n,
            temperature=1.0,
            max_tokens=args.max_tokens,
            min_tokens=args.max_tokens,
            stop=(args.stop,) if args.stop else (),
            seed=None if args.no_seeds else args.n * i,
        )
        for i in range(args.prompts)
    ]


def offline(model: ModelConfig, placement: PlacementConfig) -> Measurement:
    from vllm import LLM

    llm = LLM(**engine_args(model, placement, seed=0))

    def generate(requests: list[Request]) -> int:
        prompts = [{"prompt_token_ids": list(request.prompt)} for request in requests]
        groups = llm.generate(prompts, [sampling_params(request) for request in requests], use_tqdm=False)
        return sum(len(answer.token_ids) for group in groups for answer in group.outputs)

    return generate


def at_once(engine: Engine) -> Measurement:
    def generate(requests: list[Request]) -> int:
        before = engine.tokens_generated
        engine.generate(requests)
        return engine.tokens_generated - before

    return generate


def one_by_one(engine: Engine) -> Measurement:
    def generate(requests: list[Request]) -> int:
        before = engine.tokens_generated
        wait([engine.submit([request])[0] for request in requests])
        return engine.tokens_generated - before

    return generate


def main() -> None:
    args = arguments()
    length = args.prompt_tokens + args.max_tokens
    model = ModelConfig(path=args.model, max_length=length, learning_rate=0.0, engine_dtype=Dtype(args.dtype))
    placement = PlacementConfig(device=Device(args.device))
    placement.infer.memory_fraction = 0.4
    engine = Engine(model, placement, seed=0)
    ways = {
        "LLM.generate": offline(model, placement),
        "engine, all at once": at_once(engine),
        "engine, one by one": one_by_one(engine),
    }
    requests = make_requests(args)
    for generate in ways.values():
        generate(requests[: len(requests) // 4])
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(args.rounds):
        for way, generate in ways.items():
            begun = time.perf_counter()
            speeds[way].append(generate(requests) / (time.perf_counter() - begun))
    reference = statistics.median(speeds["LLM.generate"])
    for way, measured in speeds.items():
        median = statistics.median(measured)
        ratio = median / reference
        print(f"{way:20} {median:8.0f} tokens/s   ratio {ratio:.2f}   {sorted(map(round, measured))}")
    engine.close()


if __name__ == "__main__":
    main()
