"""A client that goes away cancels its upstream call within 1.5 seconds: stream or not, in every dialect."""

# ruff: noqa: ANN401 - ASGI's messages, and doubles whose kind a test knows

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

from llm.testing import MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Gateway = Callable[..., AbstractAsyncContextManager[Any]]

CLOCK = SystemClock()
SECONDS = 1.5
TRIES = 3  # the quickest counts: a machine that does other things holds up one of them, and hardly all

CHAT = {"model": "m", "max_tokens": 1000, "messages": [{"role": "user", "content": "one " * 400}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/messages": CHAT,
    "/v1/completions": {"model": "m", "prompt": "one " * 400, "max_tokens": 1000},
    "/v1/responses": {"model": "m", "input": "one " * 400},
    "/v1/generate": {"model": "m", "prompt": "one " * 400},
}


@pytest.mark.parametrize("upstream", ["openai", "anthropic"])
@pytest.mark.parametrize("when", ["before its answer", "in its stream"])
@pytest.mark.parametrize("path", [*BODIES, "/v1/embeddings"])
async def test_a_client_that_leaves_ends_its_call_upstream(
    gateway: Gateway, path: str, when: str, upstream: Any
) -> None:
    if path == "/v1/embeddings" and (when != "before its answer" or upstream != "openai"):
        return
    async with MockUpstream(upstream, service=60.0) as up:
        section = {"type": upstream, "base_url": up.base_url, "api_keys": ["k1"], "models": ["m"]}
        async with gateway({"providers": {"up": section}}) as it:
            host, port = it.url.removeprefix("http://").split(":")
            body = BODIES.get(path, {"model": "m", "input": "one"}) | {"stream": when == "in its stream"}
            data = json.dumps(body if path != "/v1/embeddings" else {"model": "m", "input": "one"}).encode()
            took: list[float] = []
            while len(took) < TRIES and min(took, default=SECONDS) >= SECONDS:
                reader, writer = await asyncio.open_connection(host, int(port))
                head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n"
                writer.write(head.encode() + data)
                await until(lambda: up.active == 1)
                if when == "in its stream":
                    await reader.readuntil(b"one")
                left = CLOCK.now()
                writer.close()
                await until(lambda: up.active == 0)
                await until(lambda: not it.server.state.tasks)
                took.append(CLOCK.now() - left)
            assert min(took) < SECONDS
            metrics = it.manager.get_status()["metrics"]
            assert (metrics["cancelled_requests"], metrics["total_requests"]) == (len(took), len(took))
            assert not it.entry.running
