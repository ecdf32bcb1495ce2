"""Which characters of a response each of its tokens wrote."""

import codecs
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel

Piece = tuple[int, float]
"""UTF-16 units, as JavaScript counts, and log-probability in nats of what wrote them."""


class Pieces:
    """Cuts responses where their tokens begin; for tokenizers whose tokens are bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._added = {token: "" if entry.special else entry.content for token, entry in added.items()}
        self._known: dict[int, tuple[str | None, int]] = {}

    @staticmethod
    def of(file: Path) -> "Pieces | None":
        """From a tokenizer.json; None if there is none, or its tokens are no bytes."""
        if not file.is_file():
            return None
        tokenizer = Tokenizer.from_file(str(file))
        return Pieces(tokenizer) if isinstance(tokenizer.decoder, ByteLevel) else None

    def cut(self, response: str, tokens: Sequence[int], log_probs: Sequence[float]) -> list[Piece] | None:
        """The pieces of a response, in order.

        Tokens that are parts of one character make one piece with the sum of their log-probabilities. What
        shows nothing, such as the end of the answer, is a piece without characters. None: these tokens do
        not make this text.
        """
        known = [self._known.get(token) or self._learn(token) for token in tokens]
        if all(text is not None for text, _ in known):
            whole = "".join(text for text, _ in known if text is not None) == response
            return [(units, p) for (_, units), p in zip(known, log_probs, strict=True)] if whole else None
        return self._cut_by_bytes(response, tokens, log_probs)

    def _learn(self, token: int) -> tuple[str | None, int]:
        """Text and length of a token; no text if it is a part of a character."""
        try:
            text: str | None = self._bytes(token).decode()
        except UnicodeDecodeError:
            text = None
        self._known[token] = text, units(text or "")
        return self._known[token]

    def _cut_by_bytes(
        self, response: str, tokens: Sequence[int], log_probs: Sequence[float]
    ) -> list[Piece] | None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces: list[Piece] = []
        texts, waiting = [], 0.0
        for token, log_prob in zip(tokens, log_probs, strict=True):
            written = self._bytes(token)
            text = decoder.decode(written)
            texts.append(text)
            if written and not text:
                waiting += log_prob
                continue
            pieces.append((units(text), waiting + log_prob))
            waiting = 0.0
        if rest := decoder.decode(b"", final=True):
            texts.append(rest)
            pieces.append((units(rest), waiting))
        return pieces if "".join(texts) == response else None

    def _bytes(self, token: int) -> bytes:
        if (text := self._added.get(token)) is not None:
            return text.encode()
        name = self._tokenizer.id_to_token(token)
        alphabet = byte_of_character()
        return bytes(alphabet[character] for character in name or "")


def units(text: str) -> int:
    """Length of a text in JavaScript."""
    return len(text) if text.isascii() else sum(1 + (character > "\uffff") for character in text)


@cache
def byte_of_character() -> dict[str, int]:
    """The alphabet of byte-level tokens: bytes that print stand for themselves, others for U+0100 on.

    As in GPT-2 (Radford et al. 2019).
    """
    printing: Iterable[int] = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
    alphabet = {chr(byte): byte for byte in printing}
    others = [byte for byte in range(0x100) if chr(byte) not in alphabet]
    return alphabet | {chr(0x100 + place): byte for place, byte in enumerate(others)}
