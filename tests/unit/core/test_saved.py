"""What the cache saves: tokens, US dollars and seconds, in the metrics of a manager."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from llm import LLMManager
from llm.testing import FakeClock, MockUpstream

if TYPE_CHECKING:
    from llm import LLMClient, LLMResponse

MODEL = "gpt-4o-mini"


async def ask(client: LLMClient, *, stream: bool) -> LLMResponse:
    if not stream:
        return await client.complete("What is it?")
    async with client.stream_complete("What is it?") as chunks:
        return await chunks.response()


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_hits_and_followers_save_what_the_first_answer_took_less_what_they_waited(*, stream: bool) -> None:
    clock = FakeClock(auto=True)
    section = {"base_url": "http://upstream.test/v1", "api_keys": ["k1"], "models": [MODEL]}
    async with MockUpstream("openai", clock=clock, service=4.0) as upstream:
        config = {"providers": {"openai": section}, "cache": {"backend": "memory"}}
        async with LLMManager.open(config, transport=upstream.transport(), clock=clock) as manager:
            client = manager.get_client()
            leader = asyncio.create_task(ask(client, stream=stream))
            await clock.sleep(3)
            follower = await ask(client, stream=stream)  # waits for the last of four seconds
            first = await leader
            await clock.sleep(0)
            hits = [await ask(client, stream=kind) for kind in (False, True)]
            saved = manager.get_status()["metrics"]["cache"]
    assert [answer.original_latency for answer in (first, follower, *hits)] == [None, *[pytest.approx(4.0)] * 3]
    assert [first.latency, follower.latency] == pytest.approx([4.0, 1.0])
    assert saved["seconds_saved"] == pytest.approx(3.0 + 4.0 + 4.0)
    assert saved["tokens_saved"] == 3 * first.usage.total_tokens
    assert saved["cost_saved"] == pytest.approx(3 * (first.cost or 0.0)) != 0.0
