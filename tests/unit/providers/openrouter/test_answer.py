"""Recorded exchanges, written from the vendor's public documentation: answers, streams, failures."""

# ruff: noqa: ANN401 - options and JSON as they come
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import web

from llm.core.assembly import assemble
from llm.core.exceptions import (
    LLMContentFilterError,
    LLMContextLengthError,
    LLMException,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMQuotaExceededError,
    LLMRateLimitError,
    LLMServerError,
)
from llm.core.messages import ThinkingPart
from llm.core.types import LLMRequest, StreamChunk, TokenUsage
from llm.providers.openrouter import OpenRouterDialect, OpenRouterFactory
from llm.providers.openrouter.answer import cost_of
from llm.utils.redact import Secret
from llm.utils.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.providers.conftest import Server

    from llm.core.protocols import Provider, ProviderSettings

DIALECT = OpenRouterDialect()
REQUEST = LLMRequest("Hi", model="openai/o3-mini")


def chunks_of(stream: bytes) -> list[StreamChunk]:
    reader = DIALECT.events()
    chunks: list[StreamChunk] = []
    for event in EventDecoder().feed(stream):
        read = reader.feed(event)
        chunks += read if isinstance(read, tuple) else [] if read is None else [read]
    assert reader.done
    return chunks


def test_an_answer_has_its_cost_its_counts_and_all_of_its_thoughts(wire: Callable[[str], bytes]) -> None:
    recorded = orjson.loads(wire("openrouter/answer.json"))
    response = DIALECT.decode(wire("openrouter/answer.json"), provider="p", key="k")
    assert response.cost == 0.00095
    assert response.usage == TokenUsage(194, 62, 100, 30)
    assert response.finish_reason == "tool_calls"
    (thought,) = response.thinking
    assert (thought.text, thought.signature) == ("The user asks for the weather.", None)
    assert thought.details is not None
    assert orjson.loads(thought.details) == recorded["choices"][0]["message"]["reasoning_details"]
    assert response.raw == recorded


def test_a_stream_has_them_too(wire: Callable[[str], bytes]) -> None:
    chunks = chunks_of(wire("openrouter/stream.sse"))
    assert [chunk.cost for chunk in chunks] == [None] * (len(chunks) - 1) + [0.000336]
    response = assemble(chunks)
    assert (str(response), response.cost, response.finish_reason) == ("Hello there.", 0.000336, "stop")
    assert response.usage == TokenUsage(12, 20, 4, 9)
    (thought,) = response.thinking
    assert (thought.text, thought.signature) == ("The user greets.", None)
    assert thought.details is not None
    assert orjson.loads(thought.details) == [
        {
            "type": "reasoning.text",
            "text": "The user greets.",
            "format": "anthropic-claude-v1",
            "index": 0,
            "signature": "ErUBCkYIBRgCIkA=",
        },
        {
            "type": "reasoning.encrypted",
            "data": "EmwKAhgB==",
            "id": "r-1",
            "format": "anthropic-claude-v1",
            "index": 1,
        },
    ]


def event(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return b"data: " + orjson.dumps({"id": "gen-1", "choices": [choice]}) + b"\n\n"


def detail(**fields: Any) -> dict[str, Any]:
    return {"reasoning_details": [{"type": "reasoning.text", "index": 0, **fields}]}


def test_details_without_the_plain_text_are_read_as_text() -> None:
    chunks = chunks_of(event(detail(text="a")) + event(detail(text="b"), "stop") + b"data: [DONE]\n\n")
    assert chunks == [
        StreamChunk(thinking=ThinkingPart("a")),
        StreamChunk(
            finish_reason="stop",
            thinking=ThinkingPart("b", details='[{"type":"reasoning.text","index":0,"text":"ab"}]'),
        ),
    ]


def test_thoughts_without_details_and_those_of_other_choices_stay_what_they_are() -> None:
    other = event(detail(text="no"), index=1)
    chunks = chunks_of(event({"reasoning": "a"}) + other + event({"content": "b"}, "stop") + b"data: [DONE]\n\n")
    assert assemble(chunks).thinking == (ThinkingPart("a"),)


def whole(**fields: Any) -> bytes:
    choice = {"finish_reason": "stop", "message": {"content": "Hi", **fields.pop("message", {})}}
    return orjson.dumps({"id": "gen-1", "model": "m", "choices": [choice], **fields})


def test_what_nobody_says_is_not_made_up() -> None:
    response = DIALECT.decode(whole(message={"reasoning": "Hm."}), provider="p", key=None)
    assert (response.cost, response.thinking) == (None, (ThinkingPart("Hm."),))
    assert DIALECT.decode(whole(usage={"prompt_tokens": 1}), provider="p", key=None).cost is None


def test_details_without_plain_text_are_read_as_text() -> None:
    response = DIALECT.decode(whole(message=detail(text="Hm.")), provider="p", key=None)
    assert response.thinking[0].text == "Hm."


@pytest.mark.parametrize("cost", [-1, "1", True, [1]])
def test_a_cost_that_is_none_makes_the_answer_senseless(cost: object) -> None:
    with pytest.raises(LLMServerError, match="makes no sense"):
        DIALECT.decode(whole(usage={"cost": cost}), provider="p", key=None)
    said: dict[str, Any] = {"id": "g", "choices": [], "usage": {"cost": cost}}
    with pytest.raises(LLMServerError, match="makes no sense"):
        chunks_of(b"data: " + orjson.dumps(said) + b"\n\n")


def test_an_infinite_cost_is_none() -> None:
    with pytest.raises(TypeError):
        cost_of({"cost": float("inf")})


def test_details_that_are_none_make_the_answer_senseless() -> None:
    with pytest.raises(LLMServerError, match="makes no sense"):
        DIALECT.decode(whole(message={"reasoning_details": "x"}), provider="p", key=None)
    with pytest.raises(LLMServerError, match="makes no sense"):
        chunks_of(event({"reasoning_details": [1]}))


FAILURES = [
    ("credit.json", 402, LLMQuotaExceededError, "requires more credits"),
    ("moderation.json", 403, LLMContentFilterError, "(OpenAI: flagged for violence, flagged for hate)"),
    ("upstream.json", 400, LLMContextLengthError, "Provider returned error (Anthropic: prompt is too long: 208310"),
    ("limit.json", 429, LLMRateLimitError, "(DeepInfra: meta-llama/llama-3.1-8b-instruct is temporarily"),
    ("unavailable.json", 503, LLMOverloadedError, "No allowed providers are available"),
]


@pytest.fixture
def provider(settings: ProviderSettings) -> Provider:
    return OpenRouterFactory()(settings)


async def ask(provider: Provider, *, stream: bool) -> object:
    return await (await provider.stream(REQUEST)).response() if stream else await provider.complete(REQUEST)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("inside", [False, True], ids=["status", "inside 200"])
@pytest.mark.parametrize(("file", "status", "kind", "said"), FAILURES)
async def test_a_failure_is_the_same_under_its_status_and_inside_an_answer(  # noqa: PLR0913 - a case's columns
    provider: Provider,
    server: Server,
    wire: Callable[[str], bytes],
    *,
    file: str,
    status: int,
    kind: type[LLMException],
    said: str,
    inside: bool,
    stream: bool,
) -> None:
    server.says(wire(f"openrouter/{file}"), status=200 if inside else status)
    with pytest.raises(kind) as caught:
        await ask(provider, stream=stream)
    await provider.close()
    assert type(caught.value) is kind
    assert said in caught.value.message
    assert caught.value.status == status
    assert "the flagged words" not in str(caught.value)


async def test_a_window_that_is_told_behind_the_router_is_read(
    provider: Provider, server: Server, wire: Callable[[str], bytes]
) -> None:
    server.says(wire("openrouter/upstream.json"), status=400)
    with pytest.raises(LLMContextLengthError) as caught:
        await provider.complete(REQUEST)
    await provider.close()
    assert (caught.value.limit, caught.value.requested) == (200000, 208310)


async def test_a_stream_that_breaks_behind_the_router_says_so_after_what_came(
    provider: Provider, server: Server, wire: Callable[[str], bytes]
) -> None:
    server.streams(wire("openrouter/cut.sse"))
    stream = await provider.stream(REQUEST)
    with pytest.raises(LLMServerError, match=r"Provider disconnected unexpectedly \(OpenAI\)"):
        await stream.response()
    await provider.close()
    assert stream.text == "Once upon"


def failed(status: int, message: str, **metadata: Any) -> bytes:
    return orjson.dumps({"error": {"code": status, "message": message, "metadata": metadata}})


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (failed(408, "Your request timed out"), 408, LLMServerError),
        (failed(502, "Your chosen model is down", provider_name="Nobody"), 502, LLMServerError),
        (failed(403, "Guardrail"), 403, LLMInvalidRequestError),
        (failed(402, "Busy", limit_source="openrouter_in_flight_budget"), 402, LLMRateLimitError),
        (failed(400, "No", raw='{"error":{"code":"context_length_exceeded"}}'), 400, LLMContextLengthError),
        (failed(400, "No", raw={"error": {"code": "content_filter", "message": "x"}}), 400, LLMContentFilterError),
    ],
)
async def test_each_status_has_its_exception(
    provider: Provider, server: Server, body: bytes, status: int, kind: type[LLMException]
) -> None:
    server.says(body, status=status)
    with pytest.raises(kind) as caught:
        await provider.complete(REQUEST)
    await provider.close()
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "raw",
    [
        {"error": {"code": "insufficient_quota", "message": "x"}},
        '{"error":{"code":"invalid_api_key","message":"x"}}',
        "Your credit balance is too low",
    ],
)
async def test_the_routers_own_account_behind_it_costs_us_no_key(
    provider: Provider, server: Server, raw: object
) -> None:
    server.says(failed(400, "Provider returned error", raw=raw, provider_name="Anthropic"), status=400)
    with pytest.raises(LLMInvalidRequestError, match="Anthropic"):
        await provider.complete(REQUEST)
    await provider.close()


async def test_what_is_repeated_from_behind_the_router_is_shown_without_keys(
    provider: Provider, server: Server, key: Secret
) -> None:
    raw = f"invalid x-api-key: {key.reveal()} and sk-ant-other-secret"
    server.says(failed(502, "Provider returned error", raw=raw, provider_name="Anthropic"), status=502)
    with pytest.raises(LLMServerError) as caught:
        await provider.complete(REQUEST)
    await provider.close()
    assert "Anthropic: invalid x-api-key: ****" in str(caught.value)
    assert key.reveal() not in str(caught.value)
    assert "other-secret" not in str(caught.value)


async def test_a_header_of_ones_own_goes_with_every_request_and_stays_out_of_errors(
    settings: ProviderSettings, server: Server
) -> None:
    headers: dict[str, Secret | str] = {"X-Title": "App", "X-Tenant-Token": Secret("planted-token")}
    provider = OpenRouterFactory()(replace(settings, headers=headers))

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"code": 500, "message": str(dict(request.headers))}}, status=500)

    server.answer = answer
    with pytest.raises(LLMServerError) as caught:
        await provider.complete(REQUEST)
    await provider.health_check()
    await provider.close()
    assert {request.headers.get("x-title") for request in server.requests} == {"App"}
    assert {request.headers.get("x-tenant-token") for request in server.requests} == {"planted-token"}
    assert [request.path for request in server.requests] == ["/v1/models", "/v1/chat/completions", "/v1/key"]
    assert "planted-token" not in str(caught.value) + repr(vars(provider)) + repr(settings)
