"""Hundreds of requests a second over real sockets, on the machine's clock: the limits hold there too."""

# ruff: noqa: ANN401 - options as they come
from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from llm import LLMManager, LLMRequest, LLMResponse, TokenUsage
from llm.providers.direct.transport import DirectTransport
from llm.testing import MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

CLOCK: Final = SystemClock()
MODEL: Final = "gpt-4o-mini"
KEY: Final = "sk-sockets-one"
CALLS: Final = 500
TOKENS: Final = 50
PER_MINUTE: Final = 12_000  # 200 in a second
LIMITS: Final = {"requests_per_minute": PER_MINUTE + CALLS, "tokens_per_minute": PER_MINUTE * TOKENS}


def uses_all(request: LLMRequest) -> LLMResponse:
    return LLMResponse("", request.messages[-1].text, usage=TokenUsage(1, (request.max_tokens or 1) - 1))


def config(base_url: str) -> dict[str, Any]:
    section = {"base_url": base_url, "api_keys": [KEY], "models": [MODEL]}
    limits = {**LIMITS, "algorithm": "token_bucket"}
    return {"providers": {"openai": {**section, "rate_limits": limits}}, "pool": {"max_size": 1000}}


def server() -> MockUpstream:
    return MockUpstream(limits={KEY: LIMITS}, answer=uses_all, service=0.05)


@asynccontextmanager
async def in_a_thread(upstream: MockUpstream, *, shared: bool = False) -> AsyncGenerator[str]:
    """Serve in a loop and a thread of its own, where somebody else may use a key, too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def on(work: Any) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))

    await on(upstream.__aenter__())
    other = asyncio.run_coroutine_threadsafe(use(upstream), loop) if shared else None
    try:
        yield upstream.base_url
    finally:
        if other is not None:
            other.cancel()
        await on(upstream.__aexit__())
        loop.call_soon_threadsafe(loop.stop)
        await asyncio.to_thread(thread.join)
        loop.close()


async def empty(manager: LLMManager) -> None:
    """Use up what the key has, so that all that follows goes at the limit's pace."""
    await manager.get_client().chat("all", max_tokens=PER_MINUTE * TOKENS)


async def all_at_once(manager: LLMManager) -> float:
    """Send all at once; returns how many seconds they took."""
    begun = CLOCK.now()
    client = manager.get_client()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.chat(f"call {n}", max_tokens=TOKENS)) for n in range(CALLS)]
    assert [task.result().content for task in tasks] == [f"call {n}" for n in range(CALLS)]
    return CLOCK.now() - begun


def refusals(upstream: MockUpstream) -> int:
    ours = [record for record in upstream.requests if "x-somebody-else" not in record.headers]
    return sum(record.status == 429 for record in ours)


async def test_500_sends_at_once_at_200_a_second_are_refused_at_most_5_times() -> None:
    upstream = server()
    async with in_a_thread(upstream) as base_url, LLMManager.open(config(base_url)) as manager:
        await empty(manager)
        seconds = await all_at_once(manager)
        assert refusals(upstream) <= 5
        assert len(upstream.requests) == CALLS + 1 + refusals(upstream)
        assert seconds >= CALLS * 60.0 / PER_MINUTE - 0.5


async def use(upstream: MockUpstream) -> None:
    """Send 20 a second through the key as soon as it is empty, without a look at any limit."""
    transport = DirectTransport(connect_timeout=5.0)
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", "x-somebody-else": "yes"}
    body = b'{"model":"gpt-4o-mini","max_tokens":%d,"messages":[{"role":"user","content":"x"}]}' % TOKENS
    try:
        while True:
            await CLOCK.sleep(0.05)
            if upstream.requests:
                url = f"{upstream.base_url}/chat/completions"
                reply = await transport.request("POST", url, headers=headers, body=body)
                await reply.read()
    finally:
        await transport.close()


async def test_500_sends_at_once_on_a_key_that_somebody_else_uses_are_refused_at_most_5_times() -> None:
    upstream = server()
    async with in_a_thread(upstream, shared=True) as base_url, LLMManager.open(config(base_url)) as manager:
        await empty(manager)
        await all_at_once(manager)
        others = [record.status for record in upstream.requests if "x-somebody-else" in record.headers]
        assert others.count(200) >= 5
        assert refusals(upstream) <= 5
