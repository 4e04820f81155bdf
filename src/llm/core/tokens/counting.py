"""OpenAI's count of a prompt, by its vocabularies, without a network."""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import TYPE_CHECKING, Final

from .content import declared, part_tokens, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm.core.types import LLMRequest

# Source: OpenAI's cookbook, "How to count tokens with tiktoken", num_tokens_from_messages.
_PER_MESSAGE: Final = 3
_PER_NAME: Final = 1
_BEFORE_ANSWER: Final = 3

# Source: tiktoken/model.py of github.com/openai/tiktoken.
_VOCABULARIES: Final = (
    (re.compile(r"(ft:)?(gpt-4o|gpt-4\.1|gpt-4\.5|gpt-5|gpt-oss|chatgpt-4o|o[134](-|$))"), "o200k_base"),
    (re.compile(r"(ft:)?(gpt-4|gpt-3\.5|gpt-35|text-embedding-)"), "cl100k_base"),
)
# The tokenizer refuses more than 200,000 tokens at once; a character is four bytes, thus tokens, at most.
_PIECE: Final = 50_000
_SAFE_CUT: Final = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])")


def count_tokens(request: LLMRequest, model: str) -> int | None:
    """Return how many tokens OpenAI counts for the request's prompt; None where the model's vocabulary is not known.

    Exact for text. The first count of a vocabulary takes up to a second, and belongs in a thread.
    """
    count = _counter(model)
    if count is None:
        return None
    tokens = _BEFORE_ANSWER
    for message in request.messages:
        tokens += _PER_MESSAGE + count(message.role) + sum(map(count, texts(message)))
        tokens += 0 if message.name is None else _PER_NAME + count(message.name)
        tokens += 0 if isinstance(message.content, str) else sum(map(part_tokens, message.content))
    return tokens + sum(map(count, declared(request)))


def count_text(text: str, model: str) -> int | None:
    """Return how many tokens OpenAI counts for a text, as for embeddings; None as in `count_tokens`."""
    count = _counter(model)
    return None if count is None else count(text)


def _counter(model: str) -> Callable[[str], int] | None:
    for name, vocabulary in _VOCABULARIES:
        if name.match(model):
            return _vocabulary(vocabulary)
    return None


@cache
def _vocabulary(name: str) -> Callable[[str], int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it reads its files by importlib's old way
        from bpe_openai import get_encoding  # noqa: PLC0415 - most of a second, for who asks for an exact count

    encode = get_encoding(name).encode_ordinary

    def count(text: str) -> int:
        return sum(len(encode(piece)) for piece in _pieces(text))

    return count


def _pieces(text: str) -> Iterator[str]:
    """Cut where a token ends anyway: before a space between letters."""
    start = 0
    while len(text) - start > _PIECE:
        cuts = [cut.start() for cut in _SAFE_CUT.finditer(text, start + 1, start + _PIECE)]
        end = cuts[-1] if cuts else start + _PIECE
        yield text[start:end]
        start = end
    yield text[start:]
