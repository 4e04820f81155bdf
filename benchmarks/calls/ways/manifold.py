"""Our own calls, with less and with more around them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from benchmarks.calls import shape as names
from benchmarks.calls.shape import KEY, MAX_TOKENS, MODELS, PROMPT
from llm import LLMManager, LLMRequest
from llm.core.protocols import ProviderSettings
from llm.providers.direct.transport import DirectTransport
from llm.runtime.registry import provider_factory
from llm.utils.clock import SystemClock
from llm.utils.redact import Secret

from .bare import bare

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.calls.shape import Call, Shape, Way

_AMPLE: Final = 1_000_000_000
_LEVEL: Final = {
    "requests_per_minute": _AMPLE,
    "tokens_per_minute": _AMPLE,
    "input_tokens_per_minute": _AMPLE,
    "output_tokens_per_minute": _AMPLE,
}


@dataclass(frozen=True, slots=True)
class Ours:
    """A way of ours.

    Attributes:
        section: What the provider's section of the configuration has beside key, model and address.
        above: What the configuration has beside it.
        middleware: The chain; None for the default one.
        user: Who calls.
    """

    section: dict[str, Any] = field(default_factory=dict[str, Any])
    above: dict[str, Any] = field(default_factory=dict[str, Any])
    middleware: tuple[str, ...] | None = None
    user: str | None = None

    @asynccontextmanager
    async def __call__(self, root: str, shape: Shape) -> AsyncGenerator[Call]:
        """Make a manager of its own."""
        section = {"base_url": root, "api_keys": [KEY], "models": [MODELS[shape.dialect]], **self.section}
        config = {"providers": {shape.dialect: section}, "pool": {"max_size": 4096}, **self.above}
        async with LLMManager.open(config) as manager:
            client = manager.get_client(middleware=self.middleware, user=self.user)

            async def call() -> int:
                return len((await client.complete(PROMPT, max_tokens=MAX_TOKENS)).content)

            async def stream() -> int:
                characters = 0
                async with client.stream_complete(PROMPT, max_tokens=MAX_TOKENS) as chunks:
                    async for chunk in chunks:
                        characters += len(chunk.content)
                return characters

            yield stream if shape.streamed else call


@asynccontextmanager
async def _alone(root: str, shape: Shape) -> AsyncGenerator[Call]:
    """Make a provider on its transport, without a manager: what all the rest is added to."""
    transport = DirectTransport()
    model = MODELS[shape.dialect]
    provider = provider_factory(shape.dialect)(
        ProviderSettings(shape.dialect, (model,), SystemClock(), transport, Secret(KEY), root)
    )

    async def call() -> int:
        return len((await provider.complete(LLMRequest(PROMPT, model=model, max_tokens=MAX_TOKENS))).content)

    async def stream() -> int:
        characters = 0
        request = LLMRequest(PROMPT, model=model, max_tokens=MAX_TOKENS, stream=True)
        async with await provider.stream(request) as chunks:
            async for chunk in chunks:
                characters += len(chunk.content)
        return characters

    try:
        yield stream if shape.streamed else call
    finally:
        await transport.close()


_OF_KEY: Final = {"rate_limits": [_LEVEL]}
_ABOVE: Final = {"limits": {"global": _LEVEL, "users": {"default": _LEVEL}}}

WAYS: Final[dict[str, Way]] = {
    names.BARE: bare,
    names.ALONE: _alone,
    names.NO_CHAIN: Ours(middleware=()),
    names.NO_METRICS: Ours(middleware=("rate_limit", "retry", "cache", "logging")),
    names.NO_LIMITS: Ours(),
    names.KEY_LIMITS: Ours(_OF_KEY),
    names.ALL_LIMITS: Ours(_OF_KEY, _ABOVE, user="alice"),
    names.HIT: Ours(_OF_KEY, {**_ABOVE, "cache": {"backend": "memory"}}, user="alice"),
}
