from __future__ import annotations

import gzip
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.core.exceptions import LLMConnectionError, LLMServerError
from llm.providers.direct.incoming import HIGH_WATER, MAX_QUIET_BYTES
from llm.providers.direct.reply import DirectReply

if TYPE_CHECKING:
    from collections.abc import Coroutine

BODY: Final = b'{"answer": "' + b"text " * 20 + b'"}'
PACKED: Final = gzip.compress(BODY, mtime=0)
CHUNKS: Final = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (BODY[:7], BODY[7:50], BODY[50:]))

FRAMED: Final = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % CHUNKS,
    "extensions": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\nstatus: 500\r\nx: y\r\n\r\n" % CHUNKS,
    "continue": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY),
    "hints": b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <y>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY),
    "packed": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(PACKED), PACKED),
    "old": b"HTTP/1.0 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY),
    "last": b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY),
    "no words": b"HTTP/1.1 200 \r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY),
}
UNFRAMED: Final = {
    "1.1": b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\n\r\n" + BODY,
    "1.0": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
    "kept": b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\n\r\n" + BODY,
}
EMPTY: Final = {
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n",
    "nothing": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "no chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
}


class FakeWire:
    """A connection that writes down what is asked of it."""

    host = "vendor"

    def __init__(self, method: str = "POST", max_bytes: int = 1_000_000) -> None:
        self.asked: list[str] = []
        self.keep_alive: bytes | None = None
        self.reply = DirectReply(self, method, max_bytes)

    def pause(self) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")

    def stop_sending(self) -> None:
        self.asked.append("stop sending")

    def release(self, *, reusable: bool, keep_alive: bytes | None) -> None:
        self.asked.append("keep" if reusable else "cut")
        self.keep_alive = keep_alive

    def abort(self) -> None:
        self.asked.append("abort")
        self.reply.lose("it was closed on this side")

    def takes(self, *pieces: bytes) -> DirectReply:
        for piece in pieces:
            self.reply.feed(piece)
        return self.reply


def result(work: Coroutine[object, object, bytes]) -> bytes:
    """The result of what needs no loop, because all that it reads is there; others may have their turn."""
    try:
        while work.send(None) is None:
            pass
    except StopIteration as done:
        value: bytes = done.value
        return value
    raise AssertionError("it waits")


async def whole(reply: DirectReply) -> bytes:
    await reply.head()
    return await reply.read()


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if end > start]


# --- every answer, cut anywhere


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@settings(deadline=None)
@given(st.sampled_from([*FRAMED.values()]), st.lists(st.integers(0, 10_000), max_size=12))
def test_an_answer_is_the_same_however_the_network_cuts_it(answer: bytes, cuts: list[int]) -> None:
    reply = FakeWire().takes(*pieces_of(answer, cuts))
    assert result(whole(reply)) == BODY
    assert reply.status == 200


@pytest.mark.parametrize("answer", FRAMED.values(), ids=FRAMED)
def test_an_answer_is_the_same_byte_by_byte(answer: bytes) -> None:
    reply = FakeWire().takes(*(bytes([byte]) for byte in answer))
    assert result(whole(reply)) == BODY


@pytest.mark.parametrize("answer", [*FRAMED.values(), *EMPTY.values()], ids=[*FRAMED, *EMPTY])
@pytest.mark.parametrize("orderly", [True, False])
def test_no_part_of_an_answer_is_a_whole_one(answer: bytes, orderly: bool) -> None:
    for end in range(len(answer)):
        reply = FakeWire().takes(*([answer[:end]] if end else []))
        if orderly:
            reply.eof()
        else:
            reply.lose("ConnectionResetError")
        with pytest.raises(LLMConnectionError) as caught:
            result(whole(reply))
        assert caught.value.sent
        assert caught.value.retryable


@pytest.mark.parametrize("answer", UNFRAMED.values(), ids=UNFRAMED)
def test_a_body_of_no_stated_length_ends_with_its_connection_and_only_in_order(answer: bytes) -> None:
    wire = FakeWire()
    reply = wire.takes(answer)
    assert result(reply.chunk()) == BODY
    reply.eof()
    assert result(reply.chunk()) == b""
    reset = FakeWire().takes(answer)
    reset.lose("ConnectionResetError")
    with pytest.raises(LLMConnectionError):
        result(whole(reset))


@pytest.mark.parametrize("answer", EMPTY.values(), ids=EMPTY)
def test_an_answer_without_a_body_is_empty(answer: bytes) -> None:
    wire = FakeWire()
    assert result(whole(wire.takes(answer))) == b""
    assert wire.asked[-1] == "keep"


def test_an_answer_to_head_has_no_body_whatever_length_it_states() -> None:
    wire = FakeWire("HEAD")
    assert result(whole(wire.takes(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"))) == b""
    assert wire.asked == ["keep"]
    more = FakeWire("HEAD")
    assert result(whole(more.takes(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"))) == b""
    assert more.asked == ["cut"]


# --- nonsense

OK: Final = b"HTTP/1.1 200 OK\r\n"
NONSENSE: Final = {
    "garbage": b"garbage\r\n\r\n",
    "tls": b"\x15\x03\x01\x00\x02\x02\x46\x0d\x0a",
    "request": b"GET / HTTP/1.1\r\n\r\n",
    "status in letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
    "other version": b"HTTP/7.3 200 OK\r\ncontent-length: 0\r\n\r\n",
    "two lengths": OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "a list of lengths": OK + b"content-length: 5, 6\r\n\r\nhello!",
    "length and chunks": OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "negative length": OK + b"content-length: -5\r\n\r\nhello",
    "length in letters": OK + b"content-length: five\r\n\r\nhello",
    "huge length": OK + b"content-length: 99999999999999999999999\r\n\r\nhello",
    "negative chunk": OK + b"transfer-encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    "huge chunk": OK + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "chunk in words": OK + b"transfer-encoding: chunked\r\n\r\nfive\r\nhello\r\n0\r\n\r\n",
    "chunk too long": OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
    "other transfer encoding": OK + b"transfer-encoding: gzip\r\n\r\nhello",
    "two transfer encodings": OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "blank in a name": OK + b"content length: 5\r\n\r\nhello",
    "blank before the colon": OK + b"content-length : 5\r\n\r\nhello",
    "folded field": OK + b"x: a\r\n b\r\ncontent-length: 0\r\n\r\n",
    "zero byte in a value": OK + b"x: a\x00b\r\ncontent-length: 0\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
    "other protocol": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhello",
    "not packed": OK + b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello",
    "packed otherwise": OK + b"content-encoding: br\r\ncontent-length: 5\r\n\r\nhello",
    "packed twice": OK + b"content-encoding: gzip\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello",
    "packed and cut": OK + b"content-encoding: gzip\r\ncontent-length: 20\r\n\r\n" + PACKED[:20],
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("step", [1, 10_000])
def test_what_makes_no_sense_is_an_error_and_no_answer(answer: bytes, step: int) -> None:
    wire = FakeWire()
    reply = wire.takes(*(answer[start : start + step] for start in range(0, len(answer), step)))
    reply.eof()
    with pytest.raises(LLMConnectionError) as caught:
        result(whole(reply))
    assert caught.value.sent
    assert "hello" not in str(caught.value)


@settings(deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_bytes_at_random_never_raise_what_is_not_ours(data: bytes, begun: bool) -> None:
    wire = FakeWire()
    reply = wire.takes(*([OK] if begun else []), *([data] if data else []))
    reply.eof()
    try:
        result(whole(reply))
    except LLMConnectionError as error:
        assert error.sent  # noqa: PT017 - either is right, what else comes is not


def test_what_comes_before_the_answer_is_no_part_of_its_head() -> None:
    assert dict(FakeWire().takes(FRAMED["hints"]).headers) == {"content-length": str(len(BODY))}


def test_another_protocol_is_refused_at_once() -> None:
    wire = FakeWire()
    wire.takes(NONSENSE["other protocol"])
    assert wire.asked == ["cut"]
    with pytest.raises(LLMConnectionError, match="another protocol"):
        result(whole(wire.reply))


# --- floods


@pytest.mark.parametrize("step", [1000, 60_000])
def test_a_head_without_end_is_given_up(step: int) -> None:
    wire = FakeWire()
    flood = b"x" * step
    reply = wire.takes(OK, b"x: ", *[flood] * (MAX_QUIET_BYTES // step + 2))
    with pytest.raises(LLMConnectionError, match=f"{MAX_QUIET_BYTES} bytes"):
        result(whole(reply))
    assert wire.asked == ["abort"]


def test_too_many_fields_are_refused() -> None:
    wire = FakeWire()
    fields = b"".join(b"x-%d: y\r\n" % number for number in range(257))
    with pytest.raises(LLMConnectionError, match="256 fields"):
        result(whole(wire.takes(OK + fields + b"content-length: 0\r\n\r\n")))
    assert wire.asked == ["cut"]


def test_a_field_repeated_without_end_is_refused() -> None:
    reply = FakeWire().takes(OK + b"x: 0123456789\r\n" * 3000 + b"content-length: 0\r\n\r\n")
    with pytest.raises(LLMConnectionError):
        result(whole(reply))


def test_interim_answers_without_end_are_given_up() -> None:
    reply = FakeWire().takes(*[b"HTTP/1.1 100 Continue\r\n\r\n" * 40] * 100)
    with pytest.raises(LLMConnectionError, match=f"{MAX_QUIET_BYTES} bytes"):
        result(whole(reply))


def test_trailers_without_end_are_given_up() -> None:
    wire = FakeWire()
    start = OK + b"transfer-encoding: chunked\r\n\r\n0\r\n"
    wire.takes(start, *[b"x: y\r\n" * 1000] * 20)
    with pytest.raises(LLMConnectionError, match=f"{MAX_QUIET_BYTES} bytes"):
        result(whole(wire.reply))


def test_a_long_body_in_small_chunks_is_no_flood() -> None:
    wire = FakeWire(max_bytes=10_000_000)
    wire.takes(OK + b"transfer-encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 30_000, b"0\r\n\r\n")
    assert result(whole(wire.reply)) == b"x" * 30_000


# --- what becomes of the connection


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        (FRAMED["length"], "keep"),
        (FRAMED["trailers"], "keep"),
        (FRAMED["hints"], "keep"),
        (FRAMED["old"], "cut"),
        (FRAMED["last"], "cut"),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n", "keep"),
        (FRAMED["length"] + b"surplus", "cut"),
        (FRAMED["length"] + b"H", "cut"),
        (FRAMED["length"] + FRAMED["length"], "cut"),
        (FRAMED["last"] + FRAMED["last"], "cut"),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n{}", "cut"),
    ],
)
def test_a_connection_is_kept_only_where_both_sides_can(answer: bytes, asked: str) -> None:
    wire = FakeWire()
    reply = wire.takes(answer)
    result(whole(reply))
    assert wire.asked == [asked]
    reply.close()
    assert wire.asked == [asked]


def test_a_second_answer_is_never_part_of_the_first() -> None:
    other = FRAMED["length"].replace(b"text", b"evil")
    assert result(whole(FakeWire().takes(FRAMED["length"] + other))) == BODY


def test_closing_an_answer_that_is_still_coming_cuts_the_connection() -> None:
    wire = FakeWire()
    reply = wire.takes(FRAMED["length"][:-1])
    reply.close()
    reply.close()
    assert wire.asked == ["abort"]
    assert not reply.waiting()
    with pytest.raises(LLMConnectionError, match="closed before its end"):
        result(reply.chunk())


def test_a_refusal_stops_the_request_and_an_answer_does_not() -> None:
    refused, answered = FakeWire(), FakeWire()
    refused.takes(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n")
    answered.takes(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    assert refused.asked == ["stop sending", "keep"]
    assert answered.asked == ["keep"]


def test_the_connection_is_paused_while_nobody_reads_and_resumed_by_reading() -> None:
    wire = FakeWire()
    reply = wire.takes(OK + b"content-length: 1000000\r\n\r\n", b"x" * HIGH_WATER)
    assert wire.asked == []
    reply.feed(b"x")
    assert wire.asked == ["pause"]
    assert reply.waiting()
    assert len(result(reply.chunk())) == HIGH_WATER + 1
    assert wire.asked == ["pause", "resume"]
    assert not reply.waiting()


# --- reading


def test_fields_are_found_in_any_case_and_joined_when_repeated() -> None:
    reply = FakeWire().takes(OK + b"X-Request-ID: r\xe9q\r\nvia: a\r\nVia: b\r\ncontent-length: 0\r\n\r\n")
    assert reply.headers["x-request-id"] == reply.headers["X-REQUEST-id"] == "r\xe9q"
    assert reply.headers["via"] == "a, b"
    assert reply.headers.get("nothing") is None
    assert dict(reply.headers) == {"x-request-id": "r\xe9q", "via": "a, b", "content-length": "0"}
    assert "r\xe9q" not in repr(reply.headers)


def test_trailers_change_nothing_of_the_head() -> None:
    reply = FakeWire().takes(
        OK + b"transfer-encoding: chunked\r\nx: y\r\n\r\n0\r\nx: z\r\ncontent-encoding: gzip\r\n\r\n"
    )
    assert result(whole(reply)) == b""
    assert reply.headers["x"] == "y"


@pytest.mark.parametrize("body", [b"0" * 1000, gzip.compress(b"0" * 1000)], ids=["plain", "packed"])
def test_a_body_over_the_cap_is_refused_and_cut(body: bytes) -> None:
    wire = FakeWire(max_bytes=999)
    packed = b"content-encoding: gzip\r\n" if len(body) < 1000 else b""
    wire.takes(OK + packed + b"content-length: %d\r\n\r\n" % (len(body) + 1), body)
    with pytest.raises(LLMServerError, match="999 bytes"):
        result(whole(wire.reply))
    assert wire.asked[-1] == "abort"


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_a_few_packed_bytes_never_fill_the_memory() -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    reply = FakeWire().takes(OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb), bomb)
    pieces = 0
    while data := result(reply.chunk()):
        assert len(data) <= HIGH_WATER
        pieces += len(data)
    assert pieces == 50_000_000


def test_packed_bytes_do_not_pile_up_while_they_are_unpacked() -> None:
    noise = b"".join(sha256(b"%d" % number).digest() for number in range(HIGH_WATER // 32))  # which cannot be packed
    packed = gzip.compress(noise + b"0" * 10_000_000)
    wire = FakeWire()
    reply = wire.takes(OK + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(2):
        reply.feed(b"%x\r\n%b\r\n" % (len(packed), packed))
        result(reply.chunk())
    assert wire.asked == ["pause", "resume", "pause"]
    read = 2 * HIGH_WATER
    while reply.waiting():
        read += len(result(reply.chunk()))
    assert wire.asked == ["pause", "resume", "pause", "resume"]
    assert read == 2 * (HIGH_WATER + 10_000_000)


def test_what_came_before_a_break_is_read_first() -> None:
    reply = FakeWire().takes(OK + b"transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\nnonsense")
    assert result(reply.chunk()) == b"first"
    with pytest.raises(LLMConnectionError, match="no HTTP"):
        result(reply.chunk())
