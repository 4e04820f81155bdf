"""Answers taken out of the cache: which ones a caller means, and that they go."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .exceptions import LLMInvalidRequestError
from .types import LLMRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .client import LLMClient
    from .messages import MessagesLike
    from .parts import Parts
    from .selection import Selection

_KEY: Final = re.compile(r"[0-9a-f]{64}")


async def invalidate(
    parts: Parts,
    chosen: Selection,
    *,
    key: str | None,
    request: LLMRequest | MessagesLike | None,
    client: LLMClient | None,
) -> int:
    """Remove one answer by its key, those to a request of this client, or those that are chosen; returns how many.

    Raises:
        LLMInvalidRequestError: Nothing is said, or what does not go together.
        LLMConnectionError: The store failed.
    """
    if key is not None:
        if chosen or request is not None:
            raise LLMInvalidRequestError("a key names one answer; pass nothing beside it, or leave it out")
        keys = [_checked(key)]
    elif request is not None and client is not None:
        if chosen.tags or chosen.older_than > 0:
            raise LLMInvalidRequestError("a request names its answers; pass tags or older_than without it")
        asked = request if isinstance(request, LLMRequest) else LLMRequest(request)
        named = (asked.model or chosen.model) is not None
        targets = list(_targets(client, asked, named=named))
        keys = [] if parts.answers is None else [parts.answers.key(*target) for target in targets]
    elif chosen:
        return 0 if parts.answers is None else await parts.answers.remove_all(_resolved(chosen, parts))
    else:
        raise LLMInvalidRequestError(
            "nothing says which answers to remove; pass a key, a request, a provider, model or user, tags, or "
            "older_than; clear_cache() removes every answer"
        )
    return 0 if parts.answers is None else await parts.answers.remove(keys)


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise LLMInvalidRequestError(f"key is {key!r}; expected 64 hex digits, as `manifold cache list` has them")
    return key


def _targets(client: LLMClient, request: LLMRequest, *, named: bool) -> Iterator[tuple[str, LLMRequest]]:
    """Go over the providers that may have answered, each with the request as it came there.

    Where the call `named` no model, any of the provider's may have been asked.
    """
    route, prepared, hops = client.prepare(request)
    targets = [(hop.route, hop.model) for hop in hops] or [(route, prepared.model if named else None)]
    for target, model in targets:
        models = target.chain.pool.queue.models() if model is None else (model,)
        yield from ((target.provider, replace(prepared, model=each)) for each in models)


def _resolved(chosen: Selection, parts: Parts) -> Selection:
    """Return the selection with `provider/model` taken apart."""
    name = chosen.model
    if name is None:
        return chosen
    if name in parts.config.aliases:
        targets = ", ".join(parts.config.aliases[name].targets)
        raise LLMInvalidRequestError(f"{name!r} is an alias, and answers are kept by model; name one of {targets}")
    provider, slash, model = name.partition("/")
    if not slash or provider not in parts.chains:
        return chosen
    if chosen.provider not in {None, provider}:
        raise LLMInvalidRequestError(f"provider is {chosen.provider!r} and model {name!r}; they are not the same one's")
    return replace(chosen, provider=provider, model=model)
