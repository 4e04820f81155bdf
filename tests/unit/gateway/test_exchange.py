"""One request and its answer: names that may be told, a slow reader, what comes together."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import TYPE_CHECKING, Any

import pytest

from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMConfigurationError,
    LLMException,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMPoolExhaustedError,
    LLMRateLimitError,
)
from llm.core.stream import LLMStream
from llm.core.types import LLMResponse, StreamChunk
from llm.gateway.exchange import ClientLeftError, Exchange
from llm.gateway.faults import ANTHROPIC, NATIVE, OPENAI
from llm.providers.endpoints.inquiry import told
from llm.testing import MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable

    Serving = Callable[..., Any]

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello there"}]}


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("gpt-4o-mini", b"gpt-4o-mini"),
        ("meta-llama/llama-3", b"meta-llama/llama-3"),
        ("a\r\nset-cookie: x", b"a%0D%0Aset-cookie%3A%20x"),
        ("modèle", b"mod%C3%A8le"),
    ],
)
def test_a_name_from_elsewhere_is_no_header_of_its_own(name: str, header: bytes) -> None:
    assert told(name) == header


async def test_a_model_with_a_strange_name_is_told_safely(serving: Serving) -> None:
    async with MockUpstream(answer=lambda _: LLMResponse(content="x", model="a\nb")) as up, serving(up) as it:
        status, body, headers = await it.ask("POST", CHAT, ASK)
    assert (status, body["model"], headers["x-llm-model"]) == (200, "a\nb", "a%0Ab")


class Slow:
    """Chunks that are all there already."""

    id, model = "x", "m"

    def __init__(self, chunks: int) -> None:
        self.left = chunks
        self.read = 0

    async def __anext__(self) -> StreamChunk:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        self.read += 1
        return StreamChunk("x" * 1000)

    def waiting(self) -> bool:
        return self.left > 0

    def close(self) -> None:
        self.left = 0


class Once:
    """Gives one stream to whoever asks."""

    def __init__(self, source: Slow) -> None:
        self.source = source

    def stream(self, *_: object) -> LLMStream:
        return LLMStream(self.source, provider="openai")


async def piped(serving: Serving, source: Slow, send: Any) -> None:  # noqa: ANN401 - ASGI's
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(ASK | {"stream": True}).encode()}

    async with serving() as it:
        it.entry.desk.asking = Once(source)
        await it.entry({"type": "http", "method": "POST", "path": CHAT, "headers": []}, receive, send)


async def test_what_is_there_together_goes_out_together(serving: Serving) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:  # noqa: ANN401 - ASGI's
        sent.append(message)

    await piped(serving, Slow(20), send)
    assert len(sent) == 3  # the head, all that was there, the end
    assert sent[1]["body"].count(b"data: ") == 21
    await piped(serving, Slow(200), send)
    assert max(len(message.get("body", b"")) for message in sent) < 70_000


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_a_slow_reader_stops_the_reading_of_its_stream(serving: Serving) -> None:
    source = Slow(10_000)
    stuck, go_on = asyncio.Event(), asyncio.Event()

    async def send(message: Any) -> None:  # noqa: ANN401 - ASGI's
        if message["type"] == "http.response.body" and not go_on.is_set():
            stuck.set()
            await go_on.wait()

    task = asyncio.create_task(piped(serving, source, send))
    await stuck.wait()
    for _ in range(50):
        await asyncio.sleep(0)  # noqa: TID251 - time to read on, if it did
    assert source.read < 100
    go_on.set()
    await task
    assert source.read == 10_000


async def test_a_fault_of_our_own_in_a_stream_ends_it_by_an_event(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[Any] = []

    class Broken(Slow):
        async def __anext__(self) -> StreamChunk:
            if self.read:
                raise RuntimeError("a secret".upper())
            return await super().__anext__()

    async def send(message: Any) -> None:  # noqa: ANN401 - ASGI's
        sent.append(message)

    await piped(serving, Broken(3), send)
    assert b'"type":"server_error"' in sent[-1]["body"]
    assert "more_body" not in sent[-1]
    assert b"SECRET" not in sent[-1]["body"]
    assert "RuntimeError" in caplog.text
    assert "SECRET" not in caplog.text


async def test_several_prompts_fail_together(serving: Serving) -> None:
    def answer(request: Any) -> str | Exception:  # noqa: ANN401 - an LLMRequest
        return LLMInvalidRequestError("no") if request.messages[0].content == "bad" else "good"

    async with MockUpstream(answer=answer) as up, serving(up) as it:
        status, body, _ = await it.ask("POST", "/v1/completions", {"prompt": ["good", "bad", "bad"]})
        fine = await it.ask("POST", "/v1/completions", {"prompt": ["good", "good"], "echo": True})
        usage = {"stream": True, "stream_options": {"include_usage": True}, "echo": True}
        events = await it.events("/v1/completions", {"prompt": "good", **usage})
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    assert [choice["text"] for choice in fine[1]["choices"]] == ["goodgood", "goodgood"]
    assert json.loads(events[0].removeprefix("data: "))["choices"][0]["text"] == "good"
    assert json.loads(events[-2].removeprefix("data: "))["usage"]["completion_tokens"] > 0


async def test_many_vectors_are_written_beside_other_requests(serving: Serving) -> None:
    vectors = tuple(tuple(float(place) for place in range(600)) for _ in range(100))
    async with MockUpstream(answer=lambda _: LLMResponse(embeddings=vectors)) as up, serving(up) as it:
        asked = {"model": "gpt-4o-mini", "input": ["x"] * 100, "encoding_format": "base64"}
        status, body, _ = await it.ask("POST", "/v1/embeddings", asked)
    assert status == 200
    packed = base64.b64decode(body["data"][99]["embedding"])
    assert struct.unpack("<600f", packed) == vectors[99]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (LLMOverloadedError("x"), 503, "overloaded"),
        (LLMAuthenticationError("x"), 401, "invalid_api_key"),
        (LLMAuthenticationError("the key sk-1 of /home/x", provider="openai"), 502, "upstream_authentication"),
        (LLMAuthenticationError("x", provider="openai", model_only=True), 403, "model_not_found"),
        (LLMConfigurationError("/home/x/llm.yaml:3 is wrong"), 500, "server_error"),
        (LLMException("x"), 500, "server_error"),
    ],
)
def test_a_failure_is_told_from_where_the_client_stands(error: LLMException, status: int, kind: str) -> None:
    refusal = NATIVE.refusal(error, b"req_1")
    assert (refusal.status, json.loads(refusal.body)["error"]["type"]) == (status, kind)
    for dialect in (OPENAI, ANTHROPIC, NATIVE):
        body = dialect.refusal(error, b"req_1").body
        assert b"/home" not in body
        assert b"sk-1" not in body


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (LLMRateLimitError("x", retry_after=1.2), (b"2", b"1200")),
        (LLMRateLimitError("x", retry_after=0.0), (b"1", b"1")),
        (LLMRateLimitError("x"), None),
        (LLMRateLimitError("x", retry_after=float("inf")), None),
        (LLMPoolExhaustedError("x"), (b"1", b"1000")),
        (LLMInvalidRequestError("x", retry_after=3), None),
    ],
)
def test_when_to_ask_again_is_told_where_it_is_known(error: LLMException, seconds: tuple[bytes, bytes] | None) -> None:
    headers = dict(OPENAI.refusal(error, b"").headers)
    wanted = {} if seconds is None else {b"retry-after": seconds[0], b"retry-after-ms": seconds[1]}
    assert {name: value for name, value in headers.items() if name.startswith(b"retry")} == wanted


@pytest.mark.parametrize(
    ("pieces", "length", "read"),
    [
        ([b"12345"], None, b"12345"),
        ([b"12", b"34"], b"4", b"1234"),
        ([b"123456"], None, None),
        ([b"123", b"456"], None, None),
        ([], b"6", None),
    ],
)
async def test_a_body_is_read_as_far_as_it_may_go(
    pieces: list[bytes], length: bytes | None, read: bytes | None
) -> None:
    exchange = taken([(b"content-length", length)] if length else [], pieces)
    if read is None:
        with pytest.raises(LLMInvalidRequestError, match="5 bytes") as refused:
            await exchange.body()
        assert refused.value.status == 413
    else:
        assert await exchange.body() == read


async def test_a_client_that_leaves_within_its_body_is_noticed() -> None:
    with pytest.raises(ClientLeftError):
        await taken([], []).body()
    exchange = taken([], [])
    exchange.end(LLMException("x"))  # before anybody answers it
    assert str(exchange.ending) == "x"


def taken(headers: list[tuple[bytes, bytes]], pieces: list[bytes]) -> Exchange:
    messages = [
        {"type": "http.request", "body": piece, "more_body": place < len(pieces)}
        for place, piece in enumerate(pieces, 1)
    ]

    async def receive() -> Any:  # noqa: ANN401 - ASGI's
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(_: object) -> None:
        """Is never asked."""

    return Exchange({"headers": headers}, receive, send, started=0.0, most=5)


async def test_what_is_cut_in_the_middle_of_its_answer_gets_no_second_one(serving: Serving) -> None:
    sent: list[Any] = []
    stuck = asyncio.Event()

    async def send(message: Any) -> None:  # noqa: ANN401 - ASGI's
        sent.append(message)
        stuck.set()
        await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(ASK).encode()}

    async with serving() as it:
        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": CHAT, "headers": []}
        task = asyncio.create_task(it.entry(scope, receive, send))
        await stuck.wait()
        assert it.entry.draining is False
        it.entry.end_all()
        await task
    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_a_response_keeps_the_name_that_its_provider_gave(serving: Serving) -> None:
    async with MockUpstream(answer=lambda _: LLMResponse(id="resp_7", content="x")) as up, serving(up) as it:
        _, body, _ = await it.ask("POST", "/v1/responses", {"input": "x"})
        _, other, _ = await it.ask("POST", "/v1/chat/completions", ASK)
    assert body["id"] == other["id"] == "resp_7"
