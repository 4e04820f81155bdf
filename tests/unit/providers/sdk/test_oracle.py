"""Both transports, and the vendor's client left as it is, send the same and make the same of what comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import anthropic
import httpx2
import openai
import orjson
import pytest

from llm.core.exceptions import LLMConnectionError, LLMException, LLMStreamInterruptedError
from llm.core.types import LLMRequest, ToolDefinition
from llm.providers.anthropic import AnthropicDialect
from llm.providers.base import HTTPProvider
from llm.providers.openai import OpenAIDialect
from llm.providers.responses import ResponsesDialect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.unit.providers.conftest import Server

    from llm.core.protocols import ProviderSettings, Reply
    from llm.providers.dialect import Dialect
    from llm.utils.redact import Secret

    from .conftest import Through

pytestmark = pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again

Pair: TypeAlias = Callable[[str], tuple[HTTPProvider, HTTPProvider]]
WIRE = Path(__file__).parents[3] / "wire"
KINDS = ("openai", "responses", "anthropic")
RECORDED = [f"{kind}/{path.name}" for kind in KINDS for path in sorted((WIRE / kind).glob("*.*"))]
DIALECTS: dict[str, Callable[[str | None], Dialect]] = {
    "openai": OpenAIDialect,
    "responses": ResponsesDialect,
    "anthropic": AnthropicDialect,
}
PATHS = {"openai": "/chat/completions", "responses": "/responses", "anthropic": "/v1/messages"}
REQUEST = LLMRequest(
    "Grüße\u2028 an 東京",
    model="m",
    temperature=1e-05,
    max_tokens=7,
    tools=(ToolDefinition("look_up", "Looks it up.", {"type": "object", "properties": {"at": {"type": "string"}}}),),
)


class Case(NamedTuple):
    kind: str
    status: int
    body: bytes
    headers: Mapping[str, str] = {}

    def __str__(self) -> str:
        return f"{self.kind}-{self.status}-{self.body[:40].decode()}"


def openai_says(message: str, code: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "invalid_request_error", "code": code}})


def anthropic_says(message: str, kind: str) -> bytes:
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})


ERRORS = [
    Case("openai", 401, openai_says("Incorrect API key", "invalid_api_key")),
    Case("openai", 404, openai_says("no model", "model_not_found")),
    Case("openai", 429, openai_says("slow", "rate_limit_exceeded"), {"retry_after": "7", "x_request_id": "r1"}),
    Case("openai", 429, openai_says("slow", "rate_limit_exceeded"), {"retry_after_ms": "1500"}),
    Case("openai", 429, openai_says("no credit", "insufficient_quota")),
    Case("openai", 500, b"<html>oh no</html>", {"x_request_id": "r2"}),
    Case("openai", 503, openai_says("busy"), {"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    Case("openai", 307, b"", {"location": "http://elsewhere.test/v1"}),
    Case("openai", 200, b"<html>hello</html>"),
    Case("openai", 204, b""),
    Case("openai", 200, openai_says("late", "rate_limit_exceeded")),
    Case("anthropic", 400, anthropic_says("prompt is too long: 9 tokens > 8 maximum", "invalid_request_error")),
    Case("anthropic", 401, anthropic_says("invalid x-api-key", "authentication_error")),
    Case("anthropic", 403, anthropic_says("not this model", "permission_error"), {"request_id": "q1"}),
    Case("anthropic", 429, anthropic_says("slow", "rate_limit_error"), {"retry_after": "12"}),
    Case("anthropic", 529, anthropic_says("Overloaded", "overloaded_error")),
]


class Untouched:
    """A transport of the vendor's client as it comes, on its own network."""

    def __init__(self, kind: str, url: str, key: Secret) -> None:
        self._path = PATHS[kind]
        self._client: Any
        common: Any = {"api_key": key.reveal(), "max_retries": 0}
        quick: Any = {"verify": False}  # it speaks no TLS here, and reading all certificates takes long
        if kind != "anthropic":
            http = openai.DefaultAsyncHttpxClient(**quick)
            self._client = openai.AsyncOpenAI(base_url=f"{url}/v1", http_client=http, **common)
        else:
            http = anthropic.DefaultAsyncHttpxClient(**quick)
            self._client = anthropic.AsyncAnthropic(base_url=url, http_client=http, **common)

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        assert (method, url.endswith(self._path)) == ("POST", True)
        # Unread, as it comes; what the stream is read by plays no part where the answer is asked for as it is.
        raw: Any = {"cast_to": httpx2.Response, "stream": True, "stream_cls": openai.AsyncStream}
        version = {name: value for name, value in headers.items() if name == "anthropic-version"}
        try:
            response = await self._client.post(self._path, content=body, options={"headers": version}, **raw)
        except (openai.APIStatusError, anthropic.APIStatusError) as error:
            response = error.response
        return Unread(response)

    async def close(self) -> None:
        await self._client.close()


class Unread:
    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._pieces = response.aiter_bytes()

    async def read(self) -> bytes:
        return await self._response.aread()

    async def chunk(self) -> bytes:
        try:
            return await anext(self._pieces, b"")
        except httpx2.TransportError:
            raise LLMConnectionError("it broke", sent=True) from None

    def waiting(self) -> bool:
        return False

    def close(self) -> None:
        """Left to the client's own end."""


@pytest.fixture
async def untouched(
    server: Server, key: Secret, settings: ProviderSettings
) -> AsyncIterator[Callable[[str], HTTPProvider]]:
    made: list[Untouched] = []

    def make(kind: str) -> HTTPProvider:
        made.append(Untouched(kind, server.url, key))
        return HTTPProvider(replace(settings, transport=made[-1]), DIALECTS[kind](server.url))

    yield make
    for each in made:
        await each.close()


@pytest.fixture
def pair(settings: ProviderSettings, through: Through) -> Pair:
    return lambda kind: (HTTPProvider(settings, DIALECTS[kind](settings.base_url)), through(kind))


async def outcome(provider: HTTPProvider, *, stream: bool) -> object:
    """Return all that a caller gets to see."""
    try:
        if not stream:
            return await provider.complete(REQUEST)
        begun = await provider.stream(REQUEST)
        chunks = [chunk async for chunk in begun]
        return chunks, await begun.response()
    except LLMException as error:
        return facts(error)


def facts(error: LLMException) -> tuple[object, ...]:
    partial = error.partial if isinstance(error, LLMStreamInterruptedError) else None
    told = (error.status, error.retry_after, error.request_id, error.retryable, error.provider, error.model, error.key)
    return type(error), error.message, *told, getattr(error, "sent", None), partial


@pytest.mark.parametrize("name", RECORDED)
async def test_all_three_make_the_same_of_every_recorded_exchange(
    server: Server, pair: Pair, untouched: Callable[[str], HTTPProvider], name: str
) -> None:
    body, stream, kind = (WIRE / name).read_bytes(), name.endswith(".sse"), name.partition("/")[0]
    server.says(body, type="text/event-stream" if stream else "application/json", x_request_id="r")
    direct, sdk = pair(kind)
    expected = await outcome(direct, stream=stream)
    assert await outcome(sdk, stream=stream) == expected
    assert await outcome(untouched(kind), stream=stream) == expected
    assert len(server.requests) == 3


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("case", ERRORS, ids=str)
async def test_both_make_the_same_of_a_failure_and_neither_sends_twice(
    server: Server, pair: Pair, untouched: Callable[[str], HTTPProvider], case: Case, stream: bool
) -> None:
    server.says(case.body, status=case.status, **case.headers)
    direct, sdk = pair(case.kind)
    expected = await outcome(direct, stream=stream)
    assert isinstance(expected, tuple)
    assert await outcome(sdk, stream=stream) == expected
    assert len(server.requests) == 2
    if case.status != 307:  # which the vendor's client follows, with the key
        assert await outcome(untouched(case.kind), stream=stream) == expected


@pytest.mark.parametrize("name", [name for name in RECORDED if name.endswith(".sse")])
async def test_all_three_make_the_same_of_a_stream_that_comes_slowly_in_odd_pieces(
    server: Server, pair: Pair, untouched: Callable[[str], HTTPProvider], name: str
) -> None:
    recorded, kind = (WIRE / name).read_bytes(), name.partition("/")[0]
    server.streams(*[recorded[at : at + 97] for at in range(0, len(recorded), 97)])
    direct, sdk = pair(kind)
    expected = await outcome(direct, stream=True)
    assert await outcome(sdk, stream=True) == await outcome(untouched(kind), stream=True) == expected


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_both_make_the_same_of_a_stream_that_is_cut(
    server: Server, pair: Pair, wire: Callable[[str], bytes], kind: str
) -> None:
    recorded = wire(f"{kind}/stream.sse")
    for pieces, cut in (([recorded[:-40]], True), ([recorded[:-40]], False), ([], True)):
        server.streams(*pieces, cut=cut)
        direct, sdk = pair(kind)
        expected = await outcome(direct, stream=True)
        assert await outcome(sdk, stream=True) == expected
        assert isinstance(expected, tuple)
        assert expected[0] is LLMStreamInterruptedError


@pytest.mark.parametrize("kind", KINDS)
async def test_all_three_send_the_same(
    server: Server,
    pair: Pair,
    untouched: Callable[[str], HTTPProvider],
    key: Secret,
    kind: str,
) -> None:
    server.says((WIRE / kind / "answer.json").read_bytes())
    for provider in (*pair(kind), untouched(kind)):
        await provider.complete(REQUEST)
    direct, sdk, vendor = server.requests
    assert direct.path == sdk.path == vendor.path
    assert await direct.read() == await sdk.read() == await vendor.read()
    for name in ("content-type", "anthropic-version"):
        assert len({request.headers.get(name) for request in server.requests}) == 1
    assert sdk.headers["authorization"] == vendor.headers["authorization"] == f"Bearer {key.reveal()}"
    assert sdk.headers["accept-encoding"] == direct.headers["accept-encoding"]  # what our connections unpack
    assert sdk.headers["user-agent"] == vendor.headers["user-agent"]
    # Anthropic's client of today sends the key as a bearer token, which the API takes as well as the header of its own.
    own = "x-api-key" if kind == "anthropic" else "authorization"
    assert direct.headers[own].removeprefix("Bearer ") == key.reveal()


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_both_ask_the_same_for_their_health(server: Server, pair: Pair, kind: str) -> None:
    server.says(b'{"data":[]}')
    for provider in pair(kind):
        assert await provider.health_check()
    assert [(request.method, request.path) for request in server.requests] == [("GET", "/v1/models")] * 2
    server.says(b"", status=404)
    for provider in pair(kind):
        assert not await provider.health_check()
