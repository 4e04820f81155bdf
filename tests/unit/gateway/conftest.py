"""A gateway in front of a `MockUpstream`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from llm.testing import MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    Gateways = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def serving(gateway: Gateways) -> Gateways:
    """Starts both: `async with serving(up, options={…}, **configuration) as it`; `up` may be left out."""

    @asynccontextmanager
    async def serve(
        up: MockUpstream | None = None, *, section: dict[str, Any] | None = None, **config: Any
    ) -> AsyncIterator[Any]:
        async with up or MockUpstream() as upstream:
            kind = "openai" if upstream.base_url.endswith("/v1") else "anthropic"
            told = {"base_url": upstream.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"], **(section or {})}
            options = config.pop("options", {})
            async with gateway({"providers": {kind: told}, **config}, **options) as it:
                yield it

    return serve
