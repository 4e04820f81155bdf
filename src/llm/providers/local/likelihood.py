"""How likely a token was, among all that might have come: by the network's own scores, whatever chose among them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from llm.core.choices import TokenLogprob

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_BLANK: Final = "\u2581"  # how tokenizers that are not made of bytes write one
_of_bytes: WeakKeyDictionary[PreTrainedTokenizerBase, bool] = WeakKeyDictionary()


def likelihood(scores: torch.Tensor, token: int, likeliest: int, tokenizer: PreTrainedTokenizerBase) -> TokenLogprob:
    """Return how likely a token is, and so many of the likeliest; `scores` is of shape `(vocabulary,)`."""
    logs = scores.float().log_softmax(-1)
    values, tokens = logs.topk(likeliest)
    top = [_told(tokenizer, other, value) for other, value in zip(tokens.tolist(), values.tolist(), strict=True)]
    told = _told(tokenizer, token, float(logs[token]))
    return TokenLogprob(told.token, told.logprob, told.data, tuple(top))


def bytes_of(tokenizer: PreTrainedTokenizerBase, token: int) -> bytes:
    """Return what a token stands for, which need not be whole characters."""
    word = tokenizer.convert_ids_to_tokens(token) or ""
    if tokenizer not in _of_bytes:
        decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
        _of_bytes[tokenizer] = "ByteLevel" in repr(decoder)
    if _of_bytes[tokenizer]:
        known = _letters()
        return bytes(known[letter] for letter in word) if all(map(known.__contains__, word)) else word.encode()
    if len(word) == len("<0x0A>") and word.startswith("<0x"):
        return bytes.fromhex(word[3:5])
    return word.replace(_BLANK, " ").encode()


def _told(tokenizer: PreTrainedTokenizerBase, token: int, value: float) -> TokenLogprob:
    data = bytes_of(tokenizer, token)
    return TokenLogprob(data.decode(errors="replace"), value, data)


@cache
def _letters() -> dict[str, int]:
    # Vocabularies of bytes write each as a letter: printable ones as themselves, the others from U+0100 on.
    # Source: https://github.com/openai/gpt-2/blob/master/src/encoder.py
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(ord("\u00ae"), 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + at): byte for at, byte in enumerate(others)}
