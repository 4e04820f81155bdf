"""The rule by which the doubles answer and count where a test says nothing else."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from llm.core.choices import Choice
from llm.core.messages import MessageRole
from llm.core.types import LLMResponse, TokenUsage
from llm.providers.openai.body import choices_of

if TYPE_CHECKING:
    from llm.core.texts import EmbeddingInput
    from llm.core.types import FinishReason, LLMRequest

CHARACTERS_PER_TOKEN = 4
DIMENSIONS = 8
"""Numbers of a vector where none are asked for."""


def count_tokens(characters: int) -> int:
    """Return the tokens of so many characters: a token for each four begun."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def prompt_tokens(request: LLMRequest) -> int:
    """Return the tokens of all the texts of the messages, or of those to embed, together."""
    if request.embed is not None:
        return count_tokens(sum(map(len, request.embed.texts)))
    return count_tokens(sum(len(message.text) for message in request.messages))


def answer(request: LLMRequest, text: str | None = None, *, id: str = "") -> LLMResponse:  # noqa: A002 - the response's field
    """Answer with `text`, by default the last user's text; cut at `max_tokens`, where it then ends as `length`.

    Where the request asks for several choices, all say the same.
    """
    if text is None:
        text = next((m.text for m in reversed(request.messages) if m.role is MessageRole.USER), "")
    most = request.max_tokens
    cut = most is not None and count_tokens(len(text)) > most
    if cut and most is not None:
        text = text[: most * CHARACTERS_PER_TOKEN]
    finish: FinishReason = "length" if cut else "stop"
    choices = choices_of(request.extra or {})
    return LLMResponse(
        id,
        text,
        request.model or "fake-model",
        usage=TokenUsage(prompt_tokens(request), count_tokens(len(text)) * choices),
        finish_reason=finish,
        alternatives=(Choice(text, finish),) * (choices - 1),
    )


def vectors(asked: EmbeddingInput, model: str) -> LLMResponse:
    """Answer with a vector per text; each text's tokens are counted by themselves."""
    size = asked.dimensions or DIMENSIONS
    usage = TokenUsage(sum(count_tokens(len(text)) for text in asked.texts))
    return LLMResponse(model=model, usage=usage, embeddings=tuple(vector(text, size) for text in asked.texts))


def vector(text: str, size: int) -> tuple[float, ...]:
    """Return numbers between -1 and 1 that depend on the text alone, and are exact in single precision."""
    digest = hashlib.shake_256(text.encode(errors="surrogatepass")).digest(size)
    return tuple((byte - 127.5) / 128 for byte in digest)
