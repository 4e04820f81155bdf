"""What the vendor's client writes for each platform, and what becomes of it on the way."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import socket
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from tests.patience import PATIENCE

from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMConnectionError,
    LLMException,
    LLMInvalidRequestError,
    LLMRateLimitError,
    LLMServerError,
)
from llm.core.messages import Message, MessageRole, ToolCall
from llm.core.types import LLMRequest
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from aiohttp import web
    from tests.unit.providers.conftest import Server

    from llm.providers.base import HTTPProvider
    from llm.utils.redact import Secret

    from .conftest import Through

CLOCK = SystemClock()
REQUEST = LLMRequest("Hi", model="m")
AZURE = {"client": "azure", "api_version": "2024-10-21"}
ENTRA = {"azure_ad_token_provider": "own_auth:entra"}
ENTRA_AWAY = {"azure_ad_token_provider": "own_auth:entra_is_away"}
BEDROCK = {"client": "bedrock", "aws_region": "eu-west-1"}
VERTEX = {"client": "vertex", "region": "us-east5", "project_id": "p-1", "credentials": "own_auth:credentials"}
MODEL = "anthropic.claude-3-5-haiku-20241022-v1:0"
AWS_SECRET = "aws-secret-0123456789"  # noqa: S105 - of nobody

OWN_AUTH = """
class Credentials:
    expired = False
    token = "token-of-google"

def credentials():
    return Credentials()

async def entra():
    return "token-of-entra"

def entra_is_away():
    raise ValueError("with a secret-of-entra in it")
"""


@pytest.fixture(autouse=True)
def own_auth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_auth.py").write_text(OWN_AUTH)
    monkeypatch.syspath_prepend(str(tmp_path))  # pyright: ignore[reportUnknownMemberType] # bare in pytest


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, no_ambient: None) -> None:
    assert no_ambient is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS_SECRET)


async def fails(provider: HTTPProvider, request: LLMRequest = REQUEST) -> LLMException:
    with pytest.raises(LLMException) as caught:
        await provider.complete(request)
    return caught.value


# --- Azure


@pytest.mark.parametrize("deployment", [None, "mine"])
async def test_azure_gets_its_deployment_in_the_path_and_its_key_in_its_header(
    server: Server, through: Through, key: Secret, wire: Callable[[str], bytes], deployment: str | None
) -> None:
    server.says(wire("openai/answer.json"))
    provider = through("openai", **AZURE, **({"azure_deployment": deployment} if deployment else {}))
    assert str(await provider.complete(REQUEST)) == "Hello! How can I help?"
    (sent,) = server.requests
    assert sent.path_qs == f"/openai/deployments/{deployment or 'm'}/chat/completions?api-version=2024-10-21"
    assert sent.headers["api-key"] == key.reveal()
    assert "authorization" not in sent.headers
    assert server.bodies == [{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}]


async def test_azure_takes_what_openai_takes(server: Server, through: Through, wire: Callable[[str], bytes]) -> None:
    server.says(wire("openai/answer.json"))
    await through("openai", **AZURE).complete(LLMRequest("Hi", model="m", max_tokens=5))
    assert server.bodies[0]["max_completion_tokens"] == 5


async def test_azure_takes_a_token_from_a_function_for_each_call(
    server: Server, through: Through, wire: Callable[[str], bytes]
) -> None:
    server.streams(wire("openai/stream.sse"))
    provider = through("openai", with_key=False, **AZURE, **ENTRA)
    async for _ in await provider.stream(REQUEST):
        pass
    assert server.requests[0].headers["authorization"] == "Bearer token-of-entra"


async def test_a_function_that_fails_is_told_without_its_words_and_nothing_is_sent(
    server: Server, through: Through
) -> None:
    provider = through("openai", with_key=False, **AZURE, **ENTRA_AWAY)
    error = await fails(provider)
    assert isinstance(error, LLMConnectionError)
    assert (error.sent, error.retryable) == (False, True)
    assert "ValueError" in str(error)
    assert "AsyncAzureOpenAI" in str(error)
    assert "secret-of-entra" not in "".join(traceback.format_exception(error))
    assert server.requests == []


async def test_azure_lists_its_models_beside_the_deployment(server: Server, through: Through) -> None:
    server.says(b'{"data":[]}')
    assert await through("openai", **AZURE, azure_deployment="mine").health_check()
    assert server.requests[0].path_qs == "/openai/models?api-version=2024-10-21"


# --- Bedrock


async def test_bedrock_gets_the_model_in_the_path_and_a_signature_over_what_arrives(
    server: Server, through: Through, aws: None, wire: Callable[[str], bytes]
) -> None:
    assert aws is None
    server.says(wire("anthropic/answer.json"))
    request = LLMRequest("Hi", model=MODEL, extra={"top_k": 3})
    provider = through("anthropic", with_key=False, **BEDROCK)
    response = await provider.complete(request)
    assert response.id == "msg_013Zva2CMHLNnXjNJJKqJ2EF"
    (sent,) = server.requests
    assert sent.path == f"/model/{MODEL}/invoke"
    assert server.bodies[0]["anthropic_version"] == "bedrock-2023-05-31"
    assert {"model", "stream"} & set(server.bodies[0]) == set()
    assert server.bodies[0]["top_k"] == 3
    assert "anthropic-version" not in sent.headers
    assert sent.headers["authorization"].rpartition("Signature=")[2] == signature(sent, await sent.read())


async def test_numbers_keep_all_their_digits_through_a_client_that_writes_the_body_anew(
    server: Server, through: Through, aws: None, wire: Callable[[str], bytes]
) -> None:
    assert aws is None
    server.says(wire("anthropic/answer.json"))
    called = ToolCall("t1", "count", '{"number":123456789012345678901234567890}')
    turns = (
        Message(MessageRole.USER, "Count"),
        Message(MessageRole.ASSISTANT, "", tool_calls=(called,)),
        Message(MessageRole.TOOL, "done", tool_call_id="t1"),
    )
    await through("anthropic", with_key=False, **BEDROCK).complete(LLMRequest(turns, model=MODEL))
    assert b'"number":123456789012345678901234567890' in (await server.requests[0].read()).replace(b" ", b"")


def signature(request: web.Request, body: bytes) -> str:
    """Sign a request that arrived. Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html."""
    names = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0]
    fields = [f"{name}:{' '.join(request.headers[name].split())}" for name in names.split(";")]
    path = quote(request.raw_path, safe="/~-._")
    canonical = "\n".join([request.method, path, "", *fields, "", names, hashlib.sha256(body).hexdigest()])
    date = request.headers["x-amz-date"]
    scope = [date[:8], "eu-west-1", "bedrock", "aws4_request"]
    signed = "\n".join(["AWS4-HMAC-SHA256", date, "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{AWS_SECRET}".encode()
    for part in [*scope, signed]:
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


async def test_a_key_of_bedrock_is_a_bearer_token(
    server: Server, through: Through, key: Secret, wire: Callable[[str], bytes]
) -> None:
    server.says(wire("anthropic/answer.json"))
    await through("anthropic", **BEDROCK).complete(REQUEST)
    assert server.requests[0].headers["authorization"] == f"Bearer {key.reveal()}"


async def test_without_credentials_nothing_is_sent(server: Server, through: Through) -> None:
    # A region of its own: boto3's session is kept, with what it found, for each that is asked for.
    error = await fails(through("anthropic", with_key=False, client="bedrock", aws_region="eu-west-2"))
    assert isinstance(error, LLMConnectionError)
    assert not error.sent
    assert server.requests == []


async def test_what_the_vendors_client_refuses_is_an_invalid_request_in_its_words(
    server: Server, through: Through
) -> None:
    way = through("anthropic", **BEDROCK)._transport  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(LLMInvalidRequestError, match=r"AsyncAnthropicBedrock does not send .*Token counting"):
        await way.request("POST", "https://api.anthropic.com/v1/messages/count_tokens", headers={}, body=b"{}")
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "ThrottlingException", LLMRateLimitError),
        (403, "ExpiredTokenException:http://x", LLMAuthenticationError),
        (424, "ModelErrorException", LLMServerError),
        (424, "ModelStreamErrorException", LLMServerError),
        (424, "SomethingElse", LLMInvalidRequestError),
    ],
)
async def test_a_failure_of_bedrock_goes_through_the_one_table(
    server: Server, through: Through, status: int, code: str, kind: type[LLMException]
) -> None:
    server.says(b'{"message":"no"}', status=status, x_amzn_errortype=code)
    error = await fails(through("anthropic", **BEDROCK))
    assert type(error) is kind
    assert error.status == status
    assert len(server.requests) == 1


# --- Vertex


async def test_vertex_gets_project_region_and_model_in_the_path_and_a_token_of_the_credentials(
    server: Server, through: Through, wire: Callable[[str], bytes]
) -> None:
    server.says(wire("anthropic/answer.json"))
    provider = through("anthropic", with_key=False, **VERTEX)
    await provider.complete(REQUEST)
    server.streams(wire("anthropic/stream.sse"))
    async for _ in await provider.stream(REQUEST):
        pass
    place = "/projects/p-1/locations/us-east5/publishers/anthropic/models/m"
    assert [sent.path for sent in server.requests] == [f"{place}:rawPredict", f"{place}:streamRawPredict"]
    assert {sent.headers["authorization"] for sent in server.requests} == {"Bearer token-of-google"}
    assert [body["anthropic_version"] for body in server.bodies] == ["vertex-2023-10-16"] * 2
    assert all("model" not in body for body in server.bodies)


async def test_a_platform_without_a_list_of_models_is_healthy_as_soon_as_it_answers(
    server: Server, through: Through
) -> None:
    for provider in (through("anthropic", **BEDROCK), through("anthropic", with_key=False, **VERTEX)):
        server.says(b"<html>no such page</html>", status=404)
        assert await provider.health_check()
        server.says(b'{"message":"no"}', status=403)
        assert not await provider.health_check()


# --- the way there


@pytest.fixture
async def silent() -> AsyncIterator[Silent]:
    """A server that says what a test wants and then waits until the other side is gone."""
    silent = Silent()
    listening = await asyncio.start_server(silent.handle, "127.0.0.1", 0)
    silent.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield silent
    listening.close()
    await listening.wait_closed()


class Silent:
    def __init__(self) -> None:
        self.url = ""
        self.says = b""
        self.resets = False
        self.asked = asyncio.Event()
        self.left = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(self.says)
        self.asked.set()
        if self.resets:
            writer.transport.abort()
        else:
            await reader.read()
        self.left.set()
        writer.close()


async def test_a_call_that_is_cancelled_closes_its_socket(silent: Silent, through: Through) -> None:
    call = asyncio.create_task(through("openai", base_url=silent.url).complete(REQUEST))
    await silent.asked.wait()
    call.cancel()
    async with CLOCK.timeout(PATIENCE):
        await silent.left.wait()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_stream_that_is_left_closes_its_socket(
    silent: Silent, through: Through, wire: Callable[[str], bytes]
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    silent.says = head + wire("openai/stream.sse").partition(b"data: [DONE]")[0]
    stream = await through("openai", base_url=silent.url).stream(REQUEST)
    assert str(await anext(stream)) == "Hello"
    await stream.aclose()
    async with CLOCK.timeout(PATIENCE):
        await silent.left.wait()


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_reset_may_have_been_sent_and_a_refused_connection_was_not(
    silent: Silent, through: Through, kind: str
) -> None:
    silent.resets = True
    error = await fails(through(kind, base_url=silent.url))
    assert isinstance(error, LLMConnectionError)
    assert error.sent
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    error = await fails(through(kind, base_url=f"http://127.0.0.1:{port}"))
    assert isinstance(error, LLMConnectionError)
    assert not error.sent


async def test_a_closed_one_sends_no_more(server: Server, through: Through) -> None:
    provider = through("openai")
    await provider._transport.close()  # pyright: ignore[reportPrivateUsage]
    error = await fails(provider)
    assert isinstance(error, LLMConnectionError)
    assert (error.sent, error.retryable) == (False, False)
    assert server.requests == []


# --- secrets


async def test_no_key_stands_in_a_log_or_in_what_a_traceback_shows(
    server: Server, through: Through, aws: None, key: Secret, caplog: pytest.LogCaptureFixture
) -> None:
    assert aws is None
    caplog.set_level(logging.DEBUG)
    server.says(b'{"error":{"message":"no"}}', status=401)
    ways = [
        through("openai"),
        through("openai", **AZURE),
        through("anthropic"),
        through("anthropic", **BEDROCK),
        through("anthropic", with_key=False, **BEDROCK),
        through("anthropic", with_key=False, **VERTEX),
        through("openai", with_key=False, **AZURE, **ENTRA),
    ]
    shown: list[str] = [caplog.text, repr(ways)]
    for provider in ways:
        error = await fails(provider)
        shown += traceback.TracebackException.from_exception(error, capture_locals=True).format()
        shown.append(repr(provider._transport))  # pyright: ignore[reportPrivateUsage]
    assert len(server.requests) == len(ways)
    assert "Sending HTTP Request" in caplog.text
    everything = "".join([*shown, caplog.text])
    for secret in (key.reveal(), AWS_SECRET, "token-of-google", "token-of-entra"):
        assert secret not in everything


@pytest.mark.parametrize("sdk", [{}, BEDROCK, AZURE], ids=["plain", "bedrock", "azure"])
async def test_no_secret_header_of_a_section_stands_in_a_record_and_all_are_sent(
    server: Server, through: Through, key: Secret, caplog: pytest.LogCaptureFixture, sdk: dict[str, str]
) -> None:
    caplog.set_level(logging.DEBUG)
    headers = {"X-House-Token": "house-0123456789", "X-Title": "My app"}
    server.says(b'{"error":{"message":"no"}}', status=400)
    kinds = ["anthropic"] if sdk is BEDROCK else ["openai"] if sdk is AZURE else ["openai", "anthropic"]
    for kind in kinds:
        provider = through(kind, headers=headers, **sdk)
        await fails(provider)
        await provider.health_check()
    assert {sent.headers["x-house-token"] for sent in server.requests} == {"house-0123456789"}
    assert {sent.headers["x-title"] for sent in server.requests} == {"My app"}
    assert len(server.requests) == 2 * len(kinds)
    assert any(record.name.startswith(tuple(kinds)) for record in caplog.records)
    # The message, its arguments and whatever else lies in the record.
    shown = "".join(f"{record.getMessage()}{vars(record)!r}" for record in caplog.records)
    assert [secret for secret in ("house-0123456789", key.reveal()) if secret in shown] == []


async def test_nothing_but_the_key_is_left_to_the_vendors_client(server: Server, through: Through) -> None:
    server.says(b"{}")
    way: Any = through("anthropic")._transport  # pyright: ignore[reportPrivateUsage]
    headers = {"X-Api-Key": "another", "anthropic-beta": "b-1", "anthropic-version": "2023-06-01"}
    reply = await way.request("POST", f"{server.url}/v1/messages", headers=headers, body=b"{}")
    reply.close()
    (sent,) = server.requests
    assert "x-api-key" not in sent.headers
    assert (sent.headers["anthropic-beta"], sent.headers["anthropic-version"]) == ("b-1", "2023-06-01")


@pytest.mark.parametrize("sdk", [{}, BEDROCK, VERTEX], ids=["plain", "bedrock", "vertex"])
def test_the_vendors_client_traces_nothing_for_it_sees_no_failure(through: Through, sdk: dict[str, str]) -> None:
    way: Any = through("anthropic", with_key=sdk is not VERTEX, **sdk)._transport  # pyright: ignore[reportPrivateUsage]
    assert way._vendor.client._tracer is None
