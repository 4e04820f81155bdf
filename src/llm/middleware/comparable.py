"""Which questions may be compared with others, and with which."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from llm.cache.key import cache_key, conversation_key
from llm.cache.likeness import marks_of
from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import MessageRole, TextPart
from llm.core.types import CachePolicy
from llm.core.vendor import CachePoint

if TYPE_CHECKING:
    from llm.core.types import CacheScope, LLMRequest

_LONGEST: Final = 2000  # characters; of longer texts, documents mostly, the vectors hardly tell a changed sentence
_HOTTEST: Final = 1.0  # temperature, above which answers are meant to differ
_AS_CONFIGURED: Final = CachePolicy()


class Terms(NamedTuple):
    """When questions are compared, and by what.

    Attributes:
        model: Model that makes the vectors: `provider/model` or an alias.
        threshold: Cosine from which two questions may share an answer.
        timeout: Seconds that a call waits for a vector, and for what the backend has of questions.
        ttl: Seconds that an answer may be used, where the call does not say.
        scope: How answers are shared, where the call does not say.
        streams: Whether streams are answered, too.
    """

    model: str
    threshold: float
    timeout: float
    ttl: float
    scope: CacheScope
    streams: bool


class Asked(NamedTuple):
    """What is asked.

    Attributes:
        text: The last message's.
        key: Where the cache keeps the answer.
        base: Names all of the request but the text.
        group: Names that, and what the text must have in common with another.
        policy: What the call says of the cache.
        ttl: Seconds that the answer may be used.
    """

    text: str
    key: str
    base: str
    group: str
    policy: CachePolicy
    ttl: float


def comparable(request: LLMRequest, provider: str, terms: Terms) -> Asked | None:
    """Return what a request to a provider asks; None where it is not of the kind that is compared."""
    policy = request.cache if isinstance(request.cache, CachePolicy) else _AS_CONFIGURED
    ttl = terms.ttl if policy.ttl is None else policy.ttl
    if request.cache is False or policy.refresh or ttl <= 0 or (request.stream and not terms.streams):
        return None
    text = _text_of(request)
    if text is None:
        return None
    scope = policy.scope or terms.scope
    try:
        key = cache_key(request, provider=provider, scope=scope, user=request.user)
        base = conversation_key(request, provider=provider, scope=scope, vectors=terms.model)
        return Asked(text, key, base, group_of(base, text), policy, ttl)
    except LLMInvalidRequestError:  # it has no JSON form; whoever builds the body says what is wrong
        return None


def group_of(base: str, text: str) -> str:
    """Return the name of the questions that a text may be compared with."""
    return hashlib.sha256(f"{base}{marks_of(text)}".encode()).hexdigest()


def _text_of(request: LLMRequest) -> str | None:
    """Return the text that is compared; None where the request is not of the kind that is."""
    if (
        request.embed is not None
        or request.tools
        or request.tool_choice is not None
        or request.response_model is not None
        or request.extra  # vendors' fields may ask for anything: several choices, probabilities, a search
        or (request.temperature is not None and request.temperature > _HOTTEST)
    ):
        return None
    last = request.messages[-1]
    if last.role != MessageRole.USER:
        return None
    parts = (last.content,) if isinstance(last.content, str) else last.content
    texts: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, TextPart):
            texts.append(part.text)
        elif not isinstance(part, CachePoint):
            return None
    text = "\n".join(texts)
    return text if len(text) <= _LONGEST and not text.isspace() and _is_whole(text) else None


def _is_whole(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair, of which there is no vector
        return False
