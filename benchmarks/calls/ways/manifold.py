"""Our own calls, with less and with more around them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from benchmarks.calls import shape as names
from benchmarks.calls.shape import KEY, MAX_TOKENS, MODELS, PROMPT
from llm import LLMRequest
from llm.core.protocols import ProviderSettings
from llm.providers.direct.transport import DirectTransport
from llm.runtime.registry import provider_factory
from llm.utils.clock import SystemClock
from llm.utils.redact import Secret

from .bare import bare
from .hits import Hits, disk, memory, redis
from .ours import ABOVE, OF_KEY, Ours

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.calls.shape import Call, Shape, Way


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


WAYS: Final[dict[str, Way]] = {
    names.BARE: bare,
    names.ALONE: _alone,
    names.NO_CHAIN: Ours(middleware=()),
    names.NO_METRICS: Ours(middleware=("rate_limit", "retry", "cache", "logging")),
    names.NO_LIMITS: Ours(),
    names.KEY_LIMITS: Ours(OF_KEY),
    names.ALL_LIMITS: Ours(OF_KEY, ABOVE, user="alice"),
    names.HIT: Hits(memory),
    names.DISK_HIT: Hits(disk),
    names.REDIS_HIT: Hits(redis),
}
