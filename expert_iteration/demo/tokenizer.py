"""The alphabet of the base model: byte-level BPE in which every word of the problems is one token.

Any text can be encoded, and decodes to itself. The pre-tokenizer is Qwen2's, because transformers
gives it to every folder whose model type is qwen2: with it, `AutoTokenizer` and vLLM read this folder
as `PreTrainedTokenizerFast` does, up to Unicode normalisation (they apply NFC first).
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

VOCABULARY_SIZE = 512
"""Rows of the embedding; the tokenizer uses fewer."""
PAD, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""Tokens of the response format: ordinary ones, which survive ``skip_special_tokens``."""

_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(texts: Iterable[str], max_length: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer on `texts`; `max_length` is the model's, in tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(TAGS),
        special_tokens=[PAD, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    roles = ("system\n", "user\n", "assistant\n")
    backend.train_from_iterator([*texts, *roles * 100], trainer)
    backend.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=TURN_END,
        pad_token=PAD,
        additional_special_tokens=[TURN_START],
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def render(tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    """The prompt on which the base model was trained; a response goes on right after ``<think>``."""
    turn = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert isinstance(prompt, str)
    return prompt + "<think>"
