"""`/v1/generate`, the gateway's own route."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llm.core.types import StreamChunk, TokenUsage
from llm.gateway.native import GeneratedStream
from llm.testing import MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable

    Serving = Callable[..., Any]

PATH = "/v1/generate"


async def test_a_prompt_is_continued(serving: Serving) -> None:
    async with MockUpstream(answer=lambda _: "there was a lighthouse.") as up, serving(up) as it:
        asked = {"prompt": "Once upon a time", "max_length": 7, "temperature": 0.5, "top_p": 0.9, "seed": 3}
        status, body, _ = await it.ask("POST", PATH, asked | {"stop": ["."], "presence_penalty": 1})
    assert status == 200
    assert body["generated_text"] == "there was a lighthouse."
    assert (body["prompt"], body["model"], body["provider"]) == ("Once upon a time", "gpt-4o-mini", "openai")
    assert (body["finish_reason"], body["cached"]) == ("stop", False)
    assert body["usage"]["total_tokens"] == body["usage"]["input_tokens"] + body["usage"]["output_tokens"]
    sent = up.requests[0].body
    assert sent["messages"] == [{"role": "user", "content": "Once upon a time"}]
    assert (sent["temperature"], sent["top_p"], sent["seed"], sent["stop"]) == (0.5, 0.9, 3, ["."])
    assert sent["presence_penalty"] == 1
    assert 7 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))


async def test_a_stream_of_texts_ends_with_done_and_its_usage(serving: Serving) -> None:
    async with serving() as it:
        events = await it.events(PATH, {"prompt": "Once upon a time", "stream": True})
    told = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(event["text"] for event in told[:-1]) == "Once upon a time"
    assert told[-1]["done"] is True
    assert told[-1]["finish_reason"] == "stop"
    assert told[-1]["usage"]["output_tokens"] > 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["x"]}, "prompt"),
        ({"prompt": "x", "max_length": 0}, "max_length"),
        ({"prompt": "x", "max_length": True}, "max_length"),
        ({"prompt": "x", "max_length": 1.5}, "max_length"),
        ({"prompt": "x", "temperature": 9}, "temperature"),
        ({"prompt": "x", "stream": 1}, "stream"),
    ],
)
async def test_a_wrong_field_is_named(serving: Serving, body: object, field: str) -> None:
    async with serving() as it:
        status, told, _ = await it.ask("POST", PATH, body)
    assert status == 400
    assert told["error"]["type"] == "invalid_request_error"
    assert field in told["error"]["message"]


async def test_the_servers_own_values_stand_in_for_what_a_body_leaves_out(serving: Serving) -> None:
    async with MockUpstream() as up, serving(up, options={"max_length": 3, "temperature": 0.25}) as it:
        await it.ask("POST", PATH, {"prompt": "x"})
        await it.ask("POST", PATH, {"prompt": "x", "max_length": 5, "temperature": 0.5})
    limits = [request.body.get("max_tokens", request.body.get("max_completion_tokens")) for request in up.requests]
    assert limits == [3, 5]
    assert [request.body["temperature"] for request in up.requests] == [0.25, 0.5]


async def test_a_failure_has_the_envelope_of_our_own_routes(serving: Serving) -> None:
    async with serving() as it:
        status, body, _ = await it.ask("POST", PATH, {"prompt": "x", "model": "nothing"})
    assert (status, body["error"]["type"]) == (404, "model_not_found")
    assert "gpt-4o-mini" in body["error"]["message"]


def test_a_stream_tells_the_first_of_several_choices() -> None:
    stream = GeneratedStream()
    usage = TokenUsage(3, 4)
    assert stream.begin() == b""
    assert stream.chunk(StreamChunk("x", index=1)) == b""
    assert stream.chunk(StreamChunk("y")) == b'data: {"text":"y"}\n\n'
    assert stream.chunk(StreamChunk("", finish_reason="length", usage=usage)) == b""
    assert b'"finish_reason":"length"' in stream.end()
