"""Every broken answer gives its own exception, in each dialect, whole and streamed; none passes for a short answer."""

from __future__ import annotations

import asyncio
import gzip
import re
import traceback
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
from tests.patience import PATIENCE

from llm import (
    LLMAuthenticationError,
    LLMConnectionError,
    LLMException,
    LLMInvalidRequestError,
    LLMManager,
    LLMOverloadedError,
    LLMRateLimitError,
    LLMServerError,
    LLMStreamInterruptedError,
    LLMTimeoutError,
)
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.e2e.conftest import Peer, Spoken

    from llm import LLMResponse

CLOCK: Final = SystemClock()
SHORT: Final = 0.15  # seconds
OK: Final = b"HTTP/1.1 200 OK\r\n"
LAST: Final = b"0\r\n\r\n"
KEY: Final = b"sk-test-broken-0123456789abcdef"
HTML: Final = b"<html><body>Sign in, " + KEY + b"</body></html>"

Played: TypeAlias = "tuple[Sequence[bytes | float], str]"
"""What is sent, and how the connection ends."""


@dataclass(frozen=True)
class Told:
    """What the caller is told.

    Attributes:
        kind: The exception.
        says: What its message must say; the remedy among it.
        status: Of the answer whose head came.
        sent: Of failures of the network and of time.
        claimed: The status that OpenRouter's event claims.
    """

    kind: type[LLMException]
    says: str
    status: int | None = 200
    sent: bool | None = None
    phase: str | None = None
    retryable: bool = True
    retry_after: float | None = None
    claimed: int | None = None

    @property
    def short(self) -> dict[str, float]:
        """The time-out that it runs into, which is short then; all others are not."""
        return {"attempt" if self.phase == "total" else self.phase: SHORT} if self.phase else {}


def config(peer: Peer, spoken: Spoken, **timeouts: float) -> dict[str, Any]:
    return {
        "global": {"timeouts": {"connect": 30, "first_token": 30, "idle": 30, "attempt": 30, **timeouts}},
        "retry": {"max_attempts": 1, "retry_after_max": 1},
        "providers": {spoken.provider: peer.section(spoken)},
    }


class Answers:
    """A manager whose calls `peer` answers."""

    def __init__(self, peer: Peer, spoken: Spoken) -> None:
        self.peer = peer
        self.spoken = spoken

    async def ask(self, manager: LLMManager, *, stream: bool) -> LLMResponse:
        client = manager.get_client(self.spoken.provider)
        return await (client.stream_complete("Hi").response() if stream else client.chat("Hi"))

    async def fails(self, told: Told, *, stream: bool) -> LLMException:
        """Return what the call raises, once all that holds for every failure is seen to hold."""
        async with LLMManager.open(config(self.peer, self.spoken, **told.short)) as manager:
            async with CLOCK.timeout(PATIENCE):  # which the other time-outs exceed
                with pytest.raises(LLMException) as caught:
                    await self.ask(manager, stream=stream)
            status = manager.get_status()
        error = caught.value
        self._check(error, told)
        metrics = status["metrics"]
        assert (metrics["failed_requests"], metrics["successful_requests"]) == (1, 0)
        assert metrics["errors"] == {type(error).__name__: 1}
        assert status["pool"]["calls"] == 0
        return error

    def _check(self, error: LLMException, told: Told) -> None:
        assert type(error) is told.kind, error
        assert re.search(told.says, str(error)), str(error)
        claimed = told.claimed if self.spoken.name == "openrouter" else None
        assert (error.status, error.retryable) == (claimed or told.status, told.retryable)
        assert error.retry_after == told.retry_after
        assert getattr(error, "sent", None) is told.sent
        assert getattr(error, "phase", None) == told.phase
        assert (error.provider, error.model, error.attempts) == (self.spoken.provider, "m", 1)
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        assert KEY.decode() not in repr(vars(error)) + shown.replace(repr(KEY), "")


@pytest.fixture
def answers(peer: Peer, spoken: Spoken) -> Answers:
    return Answers(peer, spoken)


def play(peer: Peer, played: Played) -> None:
    pieces, end = played
    peer.plays(*pieces, end=end)


# --- what is wrong with any answer

BROKE: Final = "broke before an answer came"
UNREAD: Final = "failure: what it says did not come whole"
NO_SENSE: Final = "makes no sense: .*; try again, and if it stays, check base_url"

HEADS: Final[dict[str, tuple[Callable[[Spoken], Played], Told]]] = {
    "closed at once": (lambda _: ([], "close"), Told(LLMConnectionError, f"{BROKE}.*again", None, sent=True)),
    "reset at once": (lambda _: ([], "reset"), Told(LLMConnectionError, f"{BROKE}.*again", None, sent=True)),
    "head cut": (lambda _: ([OK + b"content-ty"], "close"), Told(LLMConnectionError, BROKE, None, sent=True)),
    "head reset": (lambda _: ([OK + b"content-ty"], "reset"), Told(LLMConnectionError, BROKE, None, sent=True)),
    "no HTTP": (
        lambda _: ([b"SSH-2.0-OpenSSH_9.6\r\n"], "hold"),
        Told(LLMConnectionError, "no HTTP .*check base_url", None, sent=True),
    ),
    "other protocol": (
        lambda _: ([b"HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"], "hold"),
        Told(LLMConnectionError, "another protocol", None, sent=True),
    ),
    "head of a megabyte": (
        lambda _: ([OK, *[b"x-%d: %b\r\n" % (n, b"y" * 8000) for n in range(130)]], "hold"),
        Told(LLMConnectionError, "65536 bytes came around the body", None, sent=True),
    ),
    "field of a megabyte": (
        lambda _: ([OK, *[b"x: %b\r\n" % (b"y" * 8000)] * 130], "hold"),
        Told(LLMConnectionError, "a field of its head is larger than 16384 bytes", None, sent=True),
    ),
    "thousand fields": (
        lambda _: ([OK + b"".join(b"x-%d: y\r\n" % n for n in range(1000)) + b"content-length: 0\r\n\r\n"], "hold"),
        Told(LLMConnectionError, "more than 256 fields", None, sent=True),
    ),
    "two lengths": (
        lambda s: ([s.answer(s.whole, content_length="5\r\ncontent-length: 6")], "hold"),
        Told(LLMConnectionError, "no HTTP", None, sent=True),
    ),
    "redirect": (
        lambda s: ([s.answer(b"", status=307, location="https://elsewhere.example/x?token=secret")], "keep"),
        Told(LLMInvalidRequestError, r"redirects to elsewhere\.example, .*set base_url", 307, retryable=False),
    ),
    "redirect to nowhere": (
        lambda s: ([s.answer(b"", status=301)], "keep"),
        Told(LLMInvalidRequestError, "redirects to elsewhere, .*set base_url", 301, retryable=False),
    ),
    "no content": (lambda _: ([b"HTTP/1.1 204 X\r\n\r\n"], "keep"), Told(LLMServerError, NO_SENSE, 204)),
    "accepted": (lambda s: ([s.answer(s.whole, status=202)], "keep"), Told(LLMServerError, NO_SENSE, 202)),
    "page": (lambda s: ([s.answer(HTML, kind="text/html")], "keep"), Told(LLMServerError, NO_SENSE)),
    "page of a proxy": (
        lambda s: ([s.answer(HTML, status=502, kind="text/html")], "keep"),
        Told(LLMServerError, "try again; .*status page", 502),
    ),
    "a refusal cut": (
        lambda s: ([s.answer(b'{"error": {"mess', status=429, content_length="99", retry_after="1.5")], "close"),
        Told(LLMRateLimitError, f"{UNREAD}; wait, or set lower", 429, retry_after=1.5),
    ),
    "a wrong key, reset": (
        lambda s: ([s.answer(b"", status=401, content_length="99")], "reset"),
        Told(LLMAuthenticationError, f"{UNREAD}; check the key", 401, retryable=False),
    ),
    "a wrong request packed wrongly": (
        lambda s: ([s.answer(b"no", status=400, content_encoding="gzip")], "keep"),
        Told(LLMInvalidRequestError, UNREAD, 400, retryable=False),
    ),
    "a failure without end": (
        lambda s: ([s.answer(b"", status=503, content_length="999999999"), *[b"x" * 1024 * 1024] * 80], "hold"),
        Told(LLMOverloadedError, UNREAD, 503),
    ),
    "redirect cut": (
        lambda s: ([s.answer(b"", status=307, content_length="9", location="https://elsewhere.example/")], "close"),
        Told(LLMInvalidRequestError, r"redirects to elsewhere\.example, .*set base_url", 307, retryable=False),
    ),
    "nothing": (lambda s: ([s.answer(b"")], "keep"), Told(LLMServerError, NO_SENSE)),
    "a number": (lambda s: ([s.answer(b"42")], "keep"), Told(LLMServerError, NO_SENSE)),
    "error in a 200": (
        lambda s: ([s.answer(b'{"error": {"message": "no, %b", "type": "overloaded_error"}}' % KEY)], "keep"),
        Told(LLMOverloadedError, "no, .*try again later, or configure a fallback"),
    ),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_answer_that_is_none_is_its_own_exception(
    answers: Answers, peer: Peer, spoken: Spoken, name: str, stream: bool
) -> None:
    make, told = HEADS[name]
    play(peer, make(spoken))
    await answers.fails(told, stream=stream)
    assert peer.requests == 1


# --- what is wrong with a whole answer

CUT: Final = Told(LLMConnectionError, "broke in the middle of the answer: .*it can be sent again", sent=True)
SENSELESS: Final = Told(LLMServerError, NO_SENSE)
TIME: Final = Told(LLMTimeoutError, "timeouts.attempt", None, sent=True, phase="total")


def slowly(data: bytes) -> list[bytes | float]:
    return [piece for byte in data for piece in (bytes([byte]), 0.05)]


def working(spoken: Spoken) -> list[bytes | float]:
    return [spoken.chunk(b": working\n\n"), 0.02] * 100


def half(body: bytes) -> bytes:
    return body[: len(body) // 2]


def packed(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


def holding(value: bytes, spoken: Spoken) -> Played:
    """An answer whose content is something else."""
    body = b'{"id": "i", "object": "o", "model": "m", "%b": %b}' % (spoken.field, value)
    return [spoken.answer(body)], "keep"


def miscounted(spoken: Spoken, count: bytes) -> bytes:
    """An answer whose every count of tokens is none."""
    return re.sub(rb'(_tokens":\s*)\d+', rb"\g<1>" + count, spoken.whole)


WHOLE: Final[dict[str, tuple[Callable[[Spoken], Played], Told]]] = {
    "cut": (lambda s: ([s.answer(s.whole)[:-20]], "close"), CUT),
    "reset": (lambda s: ([s.answer(s.whole)[:-20]], "reset"), CUT),
    "cut in a character": (
        lambda s: ([s.answer(b'{"id": "\xc3', content_length="100")], "close"),
        CUT,
    ),
    "half a character": (lambda s: ([s.answer(re.sub(rb'("id": ?")', b"\\1\xc3", s.whole))], "keep"), SENSELESS),
    "cut in a chunk": (lambda s: ([*s.streamed(half(s.whole)), b"5\r\nab"], "close"), CUT),
    "no last chunk": (lambda s: (s.streamed(s.whole), "close"), CUT),
    "chunks of garbage": (lambda s: ([*s.streamed(half(s.whole)), b"zz\r\n"], "hold"), CUT),
    "length too large": (lambda s: ([s.answer(s.whole, content_length="99999")], "close"), CUT),
    "length too large, and kept": (lambda s: ([s.answer(s.whole, content_length="99999")], "hold"), TIME),
    "length too small": (lambda s: ([s.answer(s.whole, content_length="50")], "keep"), SENSELESS),
    "length of nothing": (lambda s: ([s.answer(s.whole, content_length="0")], "keep"), SENSELESS),
    "two answers": (lambda s: ([s.answer(s.whole * 2)], "keep"), SENSELESS),
    "half an answer": (lambda s: ([s.answer(half(s.whole))], "keep"), SENSELESS),
    "half an answer, and the end": (
        lambda s: ([OK + b"content-type: application/json\r\n\r\n" + half(s.whole)], "close"),
        SENSELESS,
    ),
    "a list": (lambda s: ([s.answer(b"[%b]" % s.whole)], "keep"), SENSELESS),
    "null": (lambda s: ([s.answer(b"null")], "keep"), SENSELESS),
    "text": (lambda s: ([s.answer(b'"hello"')], "keep"), SENSELESS),
    "an empty object": (lambda s: ([s.answer(b"{}")], "keep"), SENSELESS),
    "nested without end": (lambda s: ([s.answer(b'{"a":' * 100_000)], "keep"), SENSELESS),
    "other fields": (lambda s: ([s.answer(b'{"status": "ok", "result": []}')], "keep"), SENSELESS),
    **{
        f"content is {value.decode()}": (partial(holding, value), SENSELESS)
        for value in (b"null", b"{}", b'""', b"0", b"true", b"[null]", b"[[]]", b"[{}]", b'["a"]', b"[]")
    },
    "neither words nor a reason": (partial(holding, b'[{"index": 0, "message": {"content": null}}]'), SENSELESS),
    "usage negative": (lambda s: ([s.answer(miscounted(s, b"-1"))], "keep"), SENSELESS),
    "usage in text": (lambda s: ([s.answer(miscounted(s, b'"many"'))], "keep"), SENSELESS),
    "usage is a list": (
        lambda s: ([s.answer(s.whole.replace(b'"usage"', b'"usage": [1], "was"'))], "keep"),
        SENSELESS,
    ),
    "a stream": (lambda s: ([*s.streamed(s.stream), LAST], "keep"), SENSELESS),
    "packed and cut": (lambda s: ([s.answer(packed(s.whole)[:-9], content_encoding="gzip")], "keep"), CUT),
    "packed wrongly": (
        lambda s: ([s.answer(s.whole, content_encoding="gzip")], "keep"),
        Told(LLMConnectionError, "cannot be unpacked: what came is not gzip; it can be sent again", sent=True),
    ),
    "packed otherwise": (
        lambda s: ([s.answer(s.whole, content_encoding="br")], "keep"),
        Told(LLMConnectionError, "'br', which was not asked for", sent=True),
    ),
    "packed, and not said": (lambda s: ([s.answer(packed(s.whole))], "keep"), SENSELESS),
    "silence": (lambda _: ([], "hold"), TIME),
    "a head byte by byte": (lambda _: (slowly(OK), "hold"), TIME),
    "a body byte by byte": (
        lambda s: (
            [s.answer(s.whole)[:80], *slowly(s.whole[:40])],
            "hold",
        ),
        TIME,
    ),
    "a body that stops": (lambda s: ([s.answer(s.whole)[:-20]], "hold"), TIME),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_a_whole_answer_that_is_broken_is_its_own_exception(
    answers: Answers, peer: Peer, spoken: Spoken, name: str
) -> None:
    make, told = WHOLE[name]
    play(peer, make(spoken))
    await answers.fails(told, stream=False)
    assert peer.requests == 1


def bomb(head: bytes, filling: bytes) -> tuple[bytes, bytes]:
    """The beginning of a gzip body, and a piece of it of which any number can follow."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    return start, packer.compress(filling) + packer.flush(zlib.Z_FULL_FLUSH)


@pytest.mark.parametrize("spoken", ["openai", "anthropic"], indirect=True)
async def test_ten_gigabytes_packed_small_are_refused_before_they_fill_the_memory(
    answers: Answers, peer: Peer, spoken: Spoken
) -> None:
    start, piece = bomb(b'{"a": "', b"0" * 1024 * 1024)
    length = len(start) + 10_240 * len(piece)
    head = spoken.answer(start, content_encoding="gzip", content_length=str(length))
    peer.plays(head, *[piece * 64] * 160, end="hold")
    too_large = Told(LLMServerError, "larger than 67108864 bytes.*check base_url")
    await answers.fails(too_large, stream=False)
    assert peer.sent < length


# --- what is wrong with a stream


def chunked(spoken: Spoken, *events: bytes) -> list[bytes | float]:
    return [*spoken.streamed(*events), LAST]


def changed(events: list[bytes], old: bytes, new: bytes) -> list[bytes]:
    return [re.sub(old, new, event) for event in events]


INTERRUPTED: Final = Told(
    LLMStreamInterruptedError,
    r"before its closing event.*: .*; \.partial holds what came, and the call can be made again",
    sent=True,
)
OVERLOADED: Final = Told(LLMOverloadedError, "no, .*try again later, or configure a fallback", claimed=503)
LIMITED: Final = Told(LLMRateLimitError, "no, .*wait, or set lower rate_limits", retry_after=2.5, claimed=429)
FIRST: Final = Told(LLMTimeoutError, "timeouts.first_token", None, sent=True, phase="first_token")
IDLE: Final = Told(LLMTimeoutError, "nothing came for", None, sent=True, phase="idle", retryable=False)
LATER: Final = {"retry_after": "2.5"}

STREAMS: Final[dict[str, tuple[Callable[[Spoken], Played], Told]]] = {
    "no closing event": (lambda s: (chunked(s, *s.events[:-1]), "keep"), INTERRUPTED),
    "no closing event, and the end": (
        lambda s: ([OK + b"content-type: text/event-stream\r\n\r\n", *s.events[:-1]], "close"),
        INTERRUPTED,
    ),
    "closing event without its blank line": (
        lambda s: (chunked(s, s.stream.rstrip(b"\n") + b"\n"), "keep"),
        INTERRUPTED,
    ),
    "no events": (lambda s: (chunked(s), "keep"), INTERRUPTED),
    "comments alone": (lambda s: (chunked(s, b": working\n\n" * 1000), "keep"), INTERRUPTED),
    "cut": (lambda s: (s.streamed(*s.events[:-1]), "close"), INTERRUPTED),
    "cut in an event": (lambda s: (s.streamed(*s.events[:-2], half(s.events[-2])), "close"), INTERRUPTED),
    "cut in a character": (lambda s: (s.streamed(*s.events[:-2], b'data: {"a": "\xc3'), "close"), INTERRUPTED),
    "cut in a chunk": (lambda s: ([*s.streamed(*s.events[:-2]), b"ff\r\ndata"], "close"), INTERRUPTED),
    "reset": (lambda s: (s.streamed(*s.events[:-1]), "reset"), INTERRUPTED),
    "chunks of garbage": (lambda s: ([*s.streamed(*s.events[:-1]), b"zz\r\n"], "hold"), INTERRUPTED),
    "packed and cut": (
        lambda s: ([*s.streamed(packed(b"".join(s.events[:-1]))[:-9], content_encoding="gzip"), LAST], "keep"),
        INTERRUPTED,
    ),
    "packed otherwise": (
        lambda s: ([*s.streamed(s.stream, content_encoding="br"), LAST], "keep"),
        Told(LLMStreamInterruptedError, "'br', which was not asked for", sent=True),
    ),
    "half a character": (lambda s: (chunked(s, s.events[0], b'data: {"a": "\xc3"}\n\n'), "keep"), SENSELESS),
    "an event of a list": (lambda s: (chunked(s, *s.events[:3], b"data: [1]\n\n"), "keep"), SENSELESS),
    "an event of a number": (lambda s: (chunked(s, b"data: 1\n\n"), "keep"), SENSELESS),
    "an event of no JSON": (lambda s: (chunked(s, *s.events[:-1], b"data: done\n\n"), "keep"), SENSELESS),
    "an event of another kind": (lambda s: (chunked(s, s.events[0], b'data: {"result": "ok"}\n\n'), "keep"), SENSELESS),
    "the closing event first": (lambda s: (chunked(s, s.events[-1]), "keep"), SENSELESS),
    "the closing event alone after the beginning": (
        lambda s: (chunked(s, s.events[0], s.events[-1]), "keep"),
        SENSELESS,
    ),
    "usage negative": (
        lambda s: (chunked(s, *changed(s.events, rb'(_tokens":)\d+', rb"\g<1>-1")), "keep"),
        SENSELESS,
    ),
    "usage in text": (
        lambda s: (chunked(s, *changed(s.events, rb'(_tokens":)\d+', rb'\g<1>"many"')), "keep"),
        SENSELESS,
    ),
    "a whole answer": (
        lambda s: ([s.answer(s.whole)], "keep"),
        Told(LLMServerError, "application/json where a stream of events was asked for; try again"),
    ),
    "a whole answer as a stream": (lambda s: (chunked(s, s.whole), "keep"), INTERRUPTED),
    "an event without end": (
        lambda s: (s.streamed(b"data: ", *[b"x" * 1024 * 1024] * 100), "hold"),
        Told(LLMServerError, "one server-sent event is larger than 16777216 bytes; try again"),
    ),
    "overloaded first": (lambda s: (chunked(s, s.failure("server_is_overloaded")), "keep"), OVERLOADED),
    "overloaded in the middle": (
        lambda s: (chunked(s, *s.events[:-2], s.failure("server_is_overloaded")), "hold"),
        OVERLOADED,
    ),
    "limited first": (
        lambda s: ([*s.streamed(s.failure("rate_limit_exceeded"), **LATER)], "hold"),
        LIMITED,
    ),
    "limited in the middle, and the closing event": (
        lambda s: ([*s.streamed(*s.events[:-2], s.failure("rate_limit_exceeded"), s.events[-1], **LATER)], "hold"),
        LIMITED,
    ),
    "silence": (lambda _: ([], "hold"), FIRST),
    "a head byte by byte": (lambda _: (slowly(OK), "hold"), FIRST),
    "nothing after the head": (lambda s: (s.streamed(), "hold"), FIRST),
    "comments and no more": (lambda s: ([*s.streamed(), *working(s)], "hold"), FIRST),
    "silence in the middle": (lambda s: (s.streamed(*s.events[:-1]), "hold"), IDLE),
    "comments in the middle": (
        lambda s: ([*s.streamed(*s.events[:-1]), *working(s)], "hold"),
        IDLE,
    ),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_is_broken_is_its_own_exception(
    answers: Answers, peer: Peer, spoken: Spoken, name: str
) -> None:
    make, told = STREAMS[name]
    play(peer, make(spoken))
    error = await answers.fails(told, stream=True)
    assert peer.requests == 1
    assert text_of(spoken).startswith(getattr(error, "partial", ""))


def text_of(spoken: Spoken) -> str:
    """The text of a dialect's stream."""
    return {"openai": "Hello, world", "responses": "Hello! How can I help?", "anthropic": " Rome"}.get(
        spoken.name, "Hello there."
    )


@pytest.mark.parametrize("end", ["close", "reset", "hold"])
async def test_what_came_before_the_break_is_in_the_error(
    answers: Answers, peer: Peer, spoken: Spoken, end: str
) -> None:
    play(peer, (spoken.streamed(*spoken.events[:-1]), end))
    error = await answers.fails(IDLE if end == "hold" else INTERRUPTED, stream=True)
    if isinstance(error, LLMStreamInterruptedError):
        assert error.partial == text_of(spoken)


SEMI: Final = b"\xef\xbb\xbf"

FINE: Final[dict[str, Callable[[Spoken], Played]]] = {
    "as it should be": lambda s: (chunked(s, *s.events), "keep"),
    "old": lambda s: ([b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", s.stream], "close"),
    "no type": lambda s: ([OK + b"\r\n", s.stream], "close"),
    "early hints": lambda s: ([b"HTTP/1.1 103 X\r\nlink: <x>\r\n\r\n", *chunked(s, *s.events)], "keep"),
    "continue": lambda s: ([b"HTTP/1.1 100 Continue\r\n\r\n", *chunked(s, *s.events)], "keep"),
    "trailers": lambda s: ([*s.streamed(*s.events), b"0\r\nstatus: 500\r\n\r\n"], "keep"),
    "byte order mark": lambda s: (chunked(s, SEMI, *s.events), "keep"),
    "CRLF": lambda s: (chunked(s, s.stream.replace(b"\n", b"\r\n")), "keep"),
    "CR": lambda s: (chunked(s, s.stream.replace(b"\n", b"\r")), "keep"),
    "byte by byte": lambda s: ([*s.streamed(*[bytes([byte]) for byte in s.stream]), LAST], "keep"),
    "comments between": lambda s: (chunked(s, *[b": working\n\n" * 100 + event for event in s.events]), "keep"),
    "packed": lambda s: (
        [*s.streamed(packed(s.stream), content_encoding="gzip"), LAST],
        "keep",
    ),
    "reset after the closing event": lambda s: (s.streamed(*s.events), "reset"),
    "cut after the closing event": lambda s: (s.streamed(*s.events), "close"),
    "held after the closing event": lambda s: (s.streamed(*s.events), "hold"),
    "text after the closing event": lambda s: (chunked(s, s.stream + s.stream), "keep"),
    "failure after the closing event": lambda s: (chunked(s, s.stream + s.failure("server_is_overloaded")), "keep"),
    "garbage after the closing event": lambda s: (chunked(s, s.stream + b"data: {\n\n"), "keep"),
    "no end after the closing event": lambda s: (s.streamed(*s.events, *[b"data: x\n\n" * 10_000] * 200), "hold"),
}


@pytest.mark.parametrize("name", FINE)
async def test_an_answer_that_is_whole_is_one_however_it_comes_and_whatever_follows(
    answers: Answers, peer: Peer, spoken: Spoken, name: str
) -> None:
    play(peer, FINE[name](spoken))
    async with LLMManager.open(config(peer, spoken)) as manager:
        response = await answers.ask(manager, stream=True)
        assert (response.content, response.finish_reason) == (text_of(spoken), "stop")
        assert response.usage.output_tokens > 0
        assert manager.get_status()["metrics"]["successful_requests"] == 1
        peer.plays(*chunked(spoken, *spoken.events))
        again = await answers.ask(manager, stream=True)
        assert again.content == text_of(spoken)


@pytest.mark.parametrize("spoken", ["openai"], indirect=True)
async def test_ten_gigabytes_of_nothing_packed_small_do_not_hold_up_other_calls(
    answers: Answers, peer: Peer, spoken: Spoken
) -> None:
    start, piece = bomb(b"\n", b"\n" * 1024 * 1024)
    head, *_ = spoken.streamed(content_encoding="gzip")
    peer.plays(head, spoken.chunk(start), *[spoken.chunk(piece * 64)] * 160, end="hold")
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await CLOCK.sleep(0)
            turns += 1

    async with asyncio.TaskGroup() as group:
        other = group.create_task(take_turns())
        try:
            quiet = Told(LLMServerError, "67108864 bytes without a part of an answer; try again")
            await answers.fails(quiet, stream=True)
        finally:
            other.cancel()
    assert turns > 50  # a MiB at a time
