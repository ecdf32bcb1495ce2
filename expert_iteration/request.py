"""An order to the engine and its answers, in our words and in vLLM's."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from expert_iteration.types import Finish, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm import CompletionOutput, SamplingParams

Rollouts: TypeAlias = tuple[Rollout, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """An order for `n` answers to one prompt."""

    prompt: tuple[int, ...]
    """Token ids."""
    n: int
    temperature: float
    """0: greedy, for which `n` is 1."""
    max_tokens: int
    min_tokens: int = 0
    """Response tokens before which neither end-of-sequence nor a stop string ends a response."""
    stop: tuple[str, ...] = ()
    """Strings that end a response; they stay in its text."""
    seed: int | None = None
    """Answer i draws from seed + i, whatever else is sampled meanwhile; null: from the engine's own seed."""


def sampling_params(request: Request) -> "SamplingParams":
    """A request in the words of vLLM: complete answers only, each with the log-probs of its tokens."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=request.n,
        temperature=request.temperature,
        max_tokens=request.max_tokens,
        min_tokens=request.min_tokens,
        stop=list(request.stop),
        include_stop_str_in_output=True,
        detokenize=bool(request.stop),
        seed=request.seed,
        logprobs=0,
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def rollout_of(answer: "CompletionOutput", tokenizer: "PreTrainedTokenizerBase") -> Rollout:
    """A finished answer of vLLM in our words."""
    token_ids = tuple(answer.token_ids)
    spans = tuple((int(span.version), span.end - span.start) for span in answer.weight_versions)
    return Rollout(
        index=answer.index,
        token_ids=token_ids,
        log_probs=tuple(answer.logprobs.logprobs),
        # vLLM decodes only where it has to look for stop strings, for that costs an eighth of the speed
        text=answer.text or tokenizer.decode(token_ids, skip_special_tokens=True),
        finish=Finish(answer.finish_reason),
        version_start=spans[0][0],
        version_end=spans[-1][0],
        spans=spans,
    )
