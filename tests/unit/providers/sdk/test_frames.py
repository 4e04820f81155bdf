"""Bedrock's frames are read as the events that Anthropic would have sent."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING

import orjson
import pytest

from llm.core.exceptions import (
    LLMConnectionError,
    LLMException,
    LLMOverloadedError,
    LLMRateLimitError,
    LLMServerError,
    LLMStreamInterruptedError,
)
from llm.core.types import LLMRequest
from llm.providers.anthropic import AnthropicDialect
from llm.providers.base import HTTPProvider
from llm.providers.sdk.frames import FrameError, Frames, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.providers.conftest import Server

    from llm.core.protocols import ProviderSettings

    from .conftest import Through

REQUEST = LLMRequest("Hi", model="m")
FRAMED = "application/vnd.amazon.eventstream"
BEDROCK = {"client": "bedrock", "aws_region": "eu-west-1"}


def frame(payload: bytes, **headers: str) -> bytes:
    """Write a frame. Source: https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html."""
    fields = b""
    for name, value in headers.items():
        key = f":{name.replace('_', '-')}".encode()
        fields += struct.pack(f">B{len(key)}sBH", len(key), key, 7, len(value)) + value.encode()
    prelude = struct.pack(">II", 16 + len(fields) + len(payload), len(fields))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + fields + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


def short_head() -> bytes:
    """Write a frame whose sums are right, and whose only field ends behind its name."""
    prelude = struct.pack(">II", 19, 3)
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + b"\x02:a"
    return whole + struct.pack(">I", zlib.crc32(whole))


def chunk(data: bytes) -> bytes:
    payload = orjson.dumps({"bytes": base64.b64encode(data).decode(), "p": "abcdef"})
    return frame(payload, event_type="chunk", content_type="application/json", message_type="event")


def framed(recorded: bytes) -> bytes:
    lines = [line.removeprefix(b"data: ") for line in recorded.split(b"\n") if line.startswith(b"data: ")]
    return b"".join(map(chunk, lines))


@pytest.mark.parametrize("size", [7, 100, 100_000])
async def test_a_stream_of_frames_is_the_stream_of_events_that_it_holds(
    server: Server, settings: ProviderSettings, through: Through, wire: Callable[[str], bytes], size: int
) -> None:
    recorded = wire("anthropic/stream.sse")
    server.streams(recorded)
    expected = await HTTPProvider(settings, AnthropicDialect(settings.base_url)).stream(REQUEST)
    chunks = [chunk async for chunk in expected]
    data = framed(recorded)
    server.streams(*[data[at : at + size] for at in range(0, len(data), size)], type=FRAMED)
    stream = await through("anthropic", **BEDROCK).stream(REQUEST)
    assert [chunk async for chunk in stream] == chunks
    assert await stream.response() == await expected.response()
    assert server.requests[-1].path == "/model/m/invoke-with-response-stream"


async def fails(provider: HTTPProvider) -> LLMException:
    with pytest.raises(LLMException) as caught:
        async for _ in await provider.stream(REQUEST):
            pass
    return caught.value


def exception(name: str) -> bytes:
    return frame(b'{"message":"oh"}', message_type="exception", exception_type=name)


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (exception("throttlingException"), LLMRateLimitError),
        (exception("serviceUnavailableException"), LLMOverloadedError),
        (exception("modelStreamErrorException"), LLMServerError),
        (exception("unheardOfException"), LLMServerError),
        (frame(b"", message_type="error", error_code="InternalFailure", error_message="oh"), LLMServerError),
        (b"", LLMStreamInterruptedError),
        (b"\0" * 40, LLMStreamInterruptedError),
        (chunk(b"{}")[:-1] + b"\0", LLMStreamInterruptedError),
        (frame(b"{}", message_type="event", event_type="chunk")[:20], LLMStreamInterruptedError),
        (frame(b'{"bytes":7}', message_type="event", event_type="chunk"), LLMStreamInterruptedError),
        (short_head(), LLMStreamInterruptedError),
    ],
    ids=["throttled", "unavailable", "model", "unheard", "error", "cut", "zeros", "checksum", "part", "bytes", "head"],
)
async def test_a_stream_that_ends_otherwise_is_never_whole(
    server: Server, through: Through, wire: Callable[[str], bytes], last: bytes, kind: type[LLMException]
) -> None:
    server.streams(framed(wire("anthropic/stream.sse").partition(b"event: message_stop")[0]), last, type=FRAMED)
    assert type(await fails(through("anthropic", **BEDROCK))) is kind


@pytest.mark.parametrize(
    "broken",
    [
        chunk(b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo'),
        frame(b"<html>", message_type="event", event_type="chunk"),
    ],
    ids=["event", "payload"],
)
async def test_a_piece_that_makes_no_sense_is_not_missing_from_a_whole_answer(
    server: Server, through: Through, wire: Callable[[str], bytes], broken: bytes
) -> None:
    before, delta, after = wire("anthropic/stream.sse").partition(b"event: content_block_delta")
    server.streams(framed(before), broken, framed(delta + after), type=FRAMED)
    assert type(await fails(through("anthropic", **BEDROCK))) in {LLMConnectionError, LLMStreamInterruptedError}


def test_frames_that_hold_nothing_for_us_are_passed_over() -> None:
    frames = Frames()
    assert frames.feed(chunk(b'{"completion":"x"}')) == b""
    assert frames.feed(chunk(b"[1]")) == b""
    assert frames.feed(chunk(b'{"type":\r\n"ping"}')) == b'event: ping\ndata: {"type":  "ping"}\n\n'


def test_a_frame_without_bytes_is_none() -> None:
    with pytest.raises(FrameError):
        Frames().feed(frame(b'{"bytes":"*"}', message_type="event"))


@pytest.mark.parametrize(
    ("body", "code", "kind", "message"),
    [
        (b'{"message":"m"}', "ValidationException", "invalid_request_error", "m"),
        (b'{"Message":"m"}', "AccessDeniedException:http://internal/", "permission_error", "m"),
        (b"<html>", "InvalidSignatureException", "authentication_error", ""),
        (b'{"message":"m"}', "", None, "m"),
    ],
)
def test_a_failure_is_told_in_anthropics_form(body: bytes, code: str, kind: str | None, message: str) -> None:
    assert orjson.loads(told(body, code)) == {"type": "error", "error": {"type": kind, "message": message}}


def test_a_failure_in_anthropics_form_stays_as_it_is() -> None:
    body = b'{"type":"error","error":{"type":"api_error","message":"m"}}'
    assert told(body, "ThrottlingException") is body
