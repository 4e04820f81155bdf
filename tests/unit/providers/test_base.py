from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING

import orjson
import pytest
from aiohttp import web
from tests.patience import PATIENCE

from llm.core.call import Charge
from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMException,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMRateLimitError,
    LLMServerError,
    LLMStreamInterruptedError,
)
from llm.core.protocols import Charging, Provider
from llm.core.types import LLMRequest, TokenUsage
from llm.providers.anthropic import AnthropicDialect
from llm.providers.base import HTTPProvider
from llm.providers.openai import OpenAIDialect
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.protocols import ProviderSettings
    from llm.utils.redact import Secret

    from .conftest import Server

REQUEST = LLMRequest("Hi", model="m")


@pytest.fixture
def provider(settings: ProviderSettings) -> Provider:
    return HTTPProvider.factory(OpenAIDialect)(settings)


def test_it_is_a_provider_that_knows_its_charges(provider: Provider) -> None:
    assert isinstance(provider, Provider)
    assert isinstance(provider, Charging)


async def test_a_whole_answer_has_all_its_fields(
    provider: Provider, server: Server, key: Secret, wire: Callable[[str], bytes]
) -> None:
    server.says(wire("openai/answer.json"))
    response = await provider.complete(REQUEST)
    assert str(response) == "Hello! How can I help?"
    assert (response.id, response.model) == ("chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT", "gpt-4o-mini-2024-07-18")
    assert (response.provider, response.key) == ("section", key.fingerprint)
    assert response.usage == TokenUsage(19, 10, 4, 3)
    assert response.finish_reason == "stop"
    assert response.raw is not None
    assert response.raw["service_tier"] == "default"
    assert server.requests[0].headers["authorization"] == f"Bearer {key.reveal()}"
    assert server.requests[0].path == "/v1/chat/completions"


async def test_a_stream_ends_by_its_closing_event_as_a_whole_answer(
    provider: Provider, server: Server, key: Secret, wire: Callable[[str], bytes]
) -> None:
    server.streams(wire("openai/stream.sse"))
    stream = await provider.stream(REQUEST)
    assert [str(chunk) async for chunk in stream] == ["Hello", ", world", "", ""]
    response = await stream.response()
    assert (response.id, response.model, str(response)) == ("chatcmpl-123", "gpt-4o-mini", "Hello, world")
    assert (response.provider, response.key) == ("section", key.fingerprint)
    assert (response.usage, response.finish_reason) == (TokenUsage(19, 10, 4, 3), "stop")


async def test_a_stream_without_its_closing_event_is_interrupted_however_politely_it_ends(
    provider: Provider, server: Server, wire: Callable[[str], bytes]
) -> None:
    server.streams(wire("openai/stream.sse").replace(b"data: [DONE]\n\n", b""))
    stream = await provider.stream(REQUEST)
    with pytest.raises(LLMStreamInterruptedError) as caught:
        await stream.response()
    assert caught.value.partial == "Hello, world"
    assert caught.value.provider == "section"


def leaks(error: BaseException, key: Secret) -> bool:
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    return key.reveal() in shown or key.reveal() in repr(vars(error)) or key.reveal() in repr(error)


def repeats(key: Secret) -> bytes:
    return orjson.dumps({"error": {"message": f"slow down, {key.reveal()}", "code": "rate_limit_exceeded"}})


async def ask(provider: Provider, *, stream: bool) -> object:
    return await (await provider.stream(REQUEST)).response() if stream else await provider.complete(REQUEST)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_a_failure_tells_who_what_and_when_and_never_the_key(
    provider: Provider, server: Server, key: Secret, *, stream: bool
) -> None:
    server.says(repeats(key), status=429, retry_after="1.5", x_request_id="req_1")
    with pytest.raises(LLMRateLimitError) as caught:
        await ask(provider, stream=stream)
    error = caught.value
    assert (error.provider, error.model, error.key) == ("section", "m", key.fingerprint)
    assert (error.status, error.request_id, error.retry_after) == (429, "req_1", 1.5)
    assert "slow down" in str(error)
    assert not leaks(error, key)
    assert len(server.requests) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize(
    ("status", "type_", "body", "kind"),
    [
        (200, "text/html", b"<html>hello</html>", LLMServerError),
        (200, "application/json", b"", LLMServerError),
        (200, "application/json", b'{"choices"', LLMServerError),
        (200, "application/json", b'{"error": {"code": 503, "message": "down"}}', LLMOverloadedError),
        (204, "application/json", b"", LLMServerError),
        (401, "text/html", b"<html>no</html>", LLMAuthenticationError),
        (503, "application/json", b"", LLMOverloadedError),
    ],
)
async def test_a_body_that_is_no_answer_is_a_typed_error(  # noqa: PLR0913 - a table's columns
    provider: Provider, server: Server, *, status: int, type_: str, body: bytes, kind: type[LLMException], stream: bool
) -> None:
    server.says(body, status=status, type=type_)
    with pytest.raises(kind) as caught:
        await ask(provider, stream=stream)
    assert type(caught.value) is kind
    assert caught.value.provider == "section"


async def test_a_whole_answer_where_a_stream_was_asked_for_is_refused(
    provider: Provider, server: Server, wire: Callable[[str], bytes]
) -> None:
    server.says(wire("openai/answer.json"))
    with pytest.raises(LLMServerError, match="application/json where a stream"):
        await provider.stream(REQUEST)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_a_redirect_is_refused_and_names_only_the_host(
    provider: Provider, server: Server, *, stream: bool
) -> None:
    server.says(b"", status=308, location="https://elsewhere.example/path?token=secret")
    with pytest.raises(LLMInvalidRequestError, match=r"redirects to elsewhere\.example,") as caught:
        await ask(provider, stream=stream)
    assert "token" not in str(caught.value)
    assert not caught.value.retryable
    assert len(server.requests) == 1


async def test_a_stream_cut_in_its_middle_is_interrupted_with_what_came(
    provider: Provider, server: Server, key: Secret, wire: Callable[[str], bytes]
) -> None:
    whole = wire("openai/stream.sse")
    server.streams(whole[: whole.index(b", world") + 20], cut=True)
    stream = await provider.stream(REQUEST)
    with pytest.raises(LLMStreamInterruptedError) as caught:
        await stream.response()
    assert caught.value.partial == "Hello"
    assert caught.value.sent
    assert not leaks(caught.value, key)


@pytest.mark.parametrize("named", [b"", b"event: error\n"], ids=["by what it holds", "by its name"])
async def test_an_error_event_raises_after_a_200(
    provider: Provider, server: Server, key: Secret, wire: Callable[[str], bytes], named: bytes
) -> None:
    first, second, *_ = wire("openai/stream.sse").split(b"\n\n")
    server.streams(first + b"\n\n" + second + b"\n\n", named + b"data: " + repeats(key) + b"\n\n")
    stream = await provider.stream(REQUEST)
    with pytest.raises(LLMRateLimitError) as caught:
        await stream.response()
    assert (caught.value.key, caught.value.status) == (key.fingerprint, 200)
    assert not leaks(caught.value, key)


async def test_an_event_over_the_cap_is_a_typed_error(provider: Provider, server: Server) -> None:
    server.streams(b"data: ", *[b"x" * 1024 * 1024] * 17)
    with pytest.raises(LLMServerError, match="larger than"):
        await provider.stream(REQUEST)


async def test_a_stream_left_early_closes_its_connection(
    provider: Provider, server: Server, wire: Callable[[str], bytes]
) -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        event = wire("openai/stream.sse").split(b"\n\n")[1] + b"\n\n"
        try:
            while True:
                await response.write(event)
                await SystemClock().sleep(0.01)
        finally:
            gone.set()

    server.answer = endless
    async with await provider.stream(REQUEST) as stream:
        async for chunk in stream:
            assert str(chunk) == "Hello"
            break
    async with SystemClock().timeout(PATIENCE):
        await gone.wait()


async def test_connections_are_used_again_after_streams_and_failures(
    provider: Provider, server: Server, wire: Callable[[str], bytes]
) -> None:
    for _ in range(2):
        server.streams(wire("openai/stream.sse"))
        await ask(provider, stream=True)
        server.says(b"{}", status=500)
        with pytest.raises(LLMServerError):
            await ask(provider, stream=False)
        server.says(wire("openai/answer.json"))
        await ask(provider, stream=False)
    assert len({id(request.transport) for request in server.requests}) == 1


async def test_a_health_check_asks_for_the_models_and_costs_nothing(
    provider: Provider, server: Server, key: Secret
) -> None:
    server.says(b'{"data": []}')
    assert await provider.health_check()
    assert (server.requests[0].method, server.requests[0].path) == ("GET", "/v1/models")
    server.says(orjson.dumps({"error": {"message": f"bad key {key.reveal()}"}}), status=401)
    status = await provider.health_check()
    assert not status
    assert status.error is not None
    assert "check the key" in status.error
    assert key.reveal() not in status.error


async def test_anthropic_answers_whole_and_streamed_alike(
    settings: ProviderSettings, server: Server, key: Secret, wire: Callable[[str], bytes]
) -> None:
    provider = HTTPProvider.factory(AnthropicDialect)(settings)
    server.says(wire("anthropic/answer.json"))
    whole = await provider.complete(REQUEST)
    server.streams(wire("anthropic/stream.sse"))
    streamed = await (await provider.stream(REQUEST)).response()
    assert streamed.content == whole.content == "Hi! My name is Claude."
    assert (streamed.usage, streamed.tool_calls, streamed.thinking) == (whole.usage, whole.tool_calls, whole.thinking)
    assert (streamed.provider, streamed.key) == (whole.provider, whole.key) == ("section", key.fingerprint)
    assert server.requests[0].headers["x-api-key"] == key.reveal()
    assert server.requests[0].path == "/v1/messages"


def test_the_charge_is_the_dialects(provider: Provider) -> None:
    assert isinstance(provider, Charging)
    assert provider.charge(REQUEST, 50) == Charge(1, 50, 50)
    assert provider.used(TokenUsage(3, 4)) == Charge(3, 4, 7)


async def test_a_provider_has_nothing_of_its_own_to_open_or_close(provider: Provider, key: Secret) -> None:
    await provider.initialize()
    await provider.close()
    assert key.reveal() not in repr(vars(provider))
