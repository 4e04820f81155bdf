"""Chat completions through the gateway."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Serving = Callable[..., Any]

ASK = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello there"}]}


async def test_a_whole_answer_comes_in_openais_form(serving: Serving) -> None:
    async with serving() as gateway:
        status, body, headers = await gateway.ask("POST", "/v1/chat/completions", ASK)
    assert status == 200
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "Hello there"
    assert body["usage"]["completion_tokens"] > 0
    assert headers["x-llm-provider"] == "openai"
    assert headers["x-llm-model"] == "gpt-4o-mini"
    assert headers["x-llm-cache"] == "miss"
    assert headers["x-request-id"].startswith("req_")


async def test_a_stream_comes_in_events_and_ends_with_its_mark(serving: Serving) -> None:
    async with serving() as gateway:
        asked = ASK | {"stream": True, "stream_options": {"include_usage": True}}
        events = await gateway.events("/v1/chat/completions", asked)
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]) == "Hello there"
    assert chunks[-1]["usage"]["completion_tokens"] > 0


async def test_a_wrong_field_is_named_in_the_envelope(serving: Serving) -> None:
    async with serving() as gateway:
        status, body, _ = await gateway.ask("POST", "/v1/chat/completions", {"messages": 3})
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["param"] == "messages"


async def test_health_needs_nobody(serving: Serving) -> None:
    async with serving() as gateway:
        status, body, _ = await gateway.ask("GET", "/v1/health")
    assert (status, body["status"], body["providers"]) == (200, "ok", {"openai": "healthy"})
