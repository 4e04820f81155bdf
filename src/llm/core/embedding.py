"""Calls for vectors: who takes them, how many texts one call may hold, and their answers as one."""

from __future__ import annotations

import asyncio
from copy import copy
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Final, cast

from .exceptions import LLMException, LLMInvalidRequestError, LLMServerError
from .protocols import Embedding, EmbeddingLimited, EmbeddingLimits
from .texts import EmbeddingInput
from .types import EmbeddingResponse, TokenUsage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence

    from .protocols import Provider
    from .types import LLMRequest, LLMResponse

_UNLIMITED: Final = EmbeddingLimits()
# Of English text a token has more than four bytes, of languages written with three-byte letters about three.
_BYTES_PER_TOKEN: Final = 3


def limits_of(provider: Provider) -> EmbeddingLimits | None:
    """Return the most that one request to it may hold; None where it makes no vectors."""
    if not isinstance(provider, Embedding):
        return None
    return provider.embedding_limits if isinstance(provider, EmbeddingLimited) else _UNLIMITED


def check_embedding(provider: Provider, name: str, model: str) -> None:
    """Refuse a call for vectors where the provider makes none.

    Raises:
        LLMInvalidRequestError: It makes none.
    """
    if limits_of(provider) is None:
        raise LLMInvalidRequestError(
            f"provider {name!r} makes no embeddings; use a client of one that does, such as one of type openai or "
            "openrouter",
            provider=name,
            model=model,
        )


async def embed(provider: Provider, request: LLMRequest, asked: EmbeddingInput) -> LLMResponse:
    """Ask a provider, which `check_embedding` passed, for vectors.

    Raises:
        LLMServerError: It answers without a vector for each text.
        LLMException: It failed.
    """
    return _whole(await cast("Embedding", provider).embed(request), len(asked.texts))


def _whole(response: LLMResponse, texts: int) -> LLMResponse:
    if len(response.embeddings) == texts and len(set(map(len, response.embeddings))) == 1:
        return response
    raise LLMServerError(f"the answer is not {texts} vectors of one length; check what made it, then try again")


def portions_of(asked: EmbeddingInput, limits: EmbeddingLimits | None) -> list[EmbeddingInput]:
    """Return the texts in portions that one request each may hold; a text too long by itself goes alone."""
    if limits is None or limits == _UNLIMITED:
        return [asked]
    return [EmbeddingInput(texts, asked.dimensions) for texts in _cut(asked.texts, limits)]


def _cut(texts: Sequence[str], limits: EmbeddingLimits) -> Iterator[Sequence[str]]:
    start, tokens = 0, 0
    for end, text in enumerate(texts):
        own = 1 + len(text.encode(errors="replace")) // _BYTES_PER_TOKEN
        full = end - start == limits.texts or (limits.tokens is not None and tokens + own > limits.tokens)
        if full and end > start:
            yield texts[start:end]
            start, tokens = end, 0
        tokens += own
    yield texts[start:]


async def within(
    portions: Sequence[EmbeddingInput], ask: Callable[[EmbeddingInput], Coroutine[object, object, LLMResponse]]
) -> list[LLMResponse]:
    """Ask for all portions at once; the first failure ends the others.

    Raises:
        LLMException: One failed; of several, its message says which texts were in it.
    """
    if len(portions) == 1:
        return [_whole(await ask(portions[0]), len(portions[0].texts))]
    ends = accumulate(len(portion.texts) for portion in portions)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_one(portion, end, ask)) for portion, end in zip(portions, ends, strict=True)]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def _one(
    portion: EmbeddingInput, end: int, ask: Callable[[EmbeddingInput], Awaitable[LLMResponse]]
) -> LLMResponse:
    try:
        return _whole(await ask(portion), len(portion.texts))
    except LLMException as error:
        told = copy(error)  # calls with the same texts may share the error, and have them in other places
        told.message = f"{error.message}; it was for texts[{end - len(portion.texts)}:{end}]"
        raise told from error


def joined(responses: Sequence[LLMResponse]) -> EmbeddingResponse:
    """Return the answers to all portions as one.

    Raises:
        LLMServerError: Their vectors differ in length.
    """
    first = responses[0]
    vectors = tuple(chain.from_iterable(response.embeddings for response in responses))
    if len(set(map(len, vectors))) != 1:
        raise LLMServerError("the provider made vectors of several lengths; name the model, or set dimensions")
    costs = [response.cost for response in responses if response.cost is not None]
    return EmbeddingResponse(
        vectors,
        first.model,
        first.provider,
        sum((response.usage for response in responses), TokenUsage()),
        sum(costs) if len(costs) == len(responses) else None,
        first.key if len({response.key for response in responses}) == 1 else None,
    )
