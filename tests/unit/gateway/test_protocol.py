"""Connections: what is served, what is refused, and how each of them ends. Raw sockets on both sides of HTTP."""

# ruff: noqa: ANN401 - ASGI's messages, and doubles whose kind a test knows

from __future__ import annotations

import asyncio
import gc
import json
import socket
from contextlib import suppress
from itertools import chain, cycle
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import PATIENCE
from tests.steps import counted

from llm.gateway.cycle import Cycle
from llm.gateway.guards import Guards
from llm.gateway.protocol import HTTPConnection
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Bare = Callable[..., AbstractAsyncContextManager[Any]]

CLOCK = SystemClock()
HOST = "Host: here\r\n"
GET = f"GET / HTTP/1.1\r\n{HOST}\r\n"
CHUNKED = f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n"
SHORT = 0.08  # seconds


def post(body: str, path: str = "/", **headers: str) -> str:
    lines = "".join([f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()])
    return f"POST {path} HTTP/1.1\r\n{HOST}{lines}Content-Length: {len(body)}\r\n\r\n{body}"


def why(body: bytes) -> str:
    """Return what an error's envelope says; it is one in all dialects."""
    told = json.loads(body)
    assert told["type"] == "error"
    assert set(told["error"]) == {"type", "message", "code", "param"}
    return str(told["error"]["message"])


# --- what is served -----------------------------------------------------------------------------------------------


async def test_requests_on_one_connection_are_answered_one_after_the_other(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open(post("one"))
        assert (await raw.answer())[2] == b"one"
        raw.send(CHUNKED, "3\r\ntwo\r\n0\r\nX-Trailer: is not looked at\r\n\r\n")
        assert (await raw.answer())[2] == b"two"
        raw.send(GET)
        status, head, body = await raw.answer()
    assert (status, body) == (200, b"")
    assert b"\r\ndate: " in head
    assert b"connection:" not in head
    assert server.app.bodies == [b"one", b"two", b""]
    assert (b"x-trailer", b"is not looked at") not in server.app.asked[1]["headers"]


async def test_what_is_sent_ahead_is_answered_in_its_order(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open(post("a"), post("b"), CHUNKED, "1\r\nc\r\n0\r\n\r\n", GET)
        assert [(await raw.answer())[2] for _ in range(4)] == [b"a", b"b", b"c", b""]


async def test_what_is_sent_ahead_while_an_answer_is_made_waits_for_it(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open(f"GET /wait HTTP/1.1\r\n{HOST}\r\n")
        await server.until(lambda: server.app.asked)
        raw.send(post("x" * 40_000), post("y" * 40_000), post("z"))
        await CLOCK.sleep(SHORT)
        assert len(server.app.asked) == 1
        server.app.go_on.set()
        bodies = [(await raw.answer())[2] for _ in range(4)]
    assert [body[:1] for body in bodies] == [b"l", b"x", b"y", b"z"]


async def test_connections_that_send_at_once_keep_what_is_theirs(bare: Bare) -> None:
    async with bare() as server:
        bodies = [str(number) * 100_000 for number in range(8)]
        raws = [await server.open() for _ in bodies]
        for at in range(0, 120_000, 30_000):
            for raw, body in zip(raws, bodies, strict=True):
                raw.send(post(body)[at : at + 30_000])
            await CLOCK.sleep(0.0)
        answers = [(await raw.answer())[2].decode() for raw in raws]
    assert answers == bodies


async def test_a_request_that_was_answered_is_gone_without_the_collector(bare: Bare) -> None:
    gc.collect()
    gc.disable()
    try:
        async with bare() as server:
            raw = await server.open(GET, GET, GET)
            for _ in range(3):
                await raw.answer()
            server.app.asked.clear()
            left = [each for each in gc.get_objects() if type(each) is Cycle]
    finally:
        gc.enable()
    assert len(left) == 1  # the connection's newest


async def test_a_connection_that_ended_is_gone_without_the_collector(bare: Bare) -> None:
    gc.collect()
    gc.disable()
    try:
        async with bare() as server:
            for _ in range(3):
                raw = await server.open(GET)
                await raw.answer()
                raw.leave()
            await server.until(lambda: not server.connections)
            server.app.asked.clear()
            left = [each for each in gc.get_objects() if type(each) in (Cycle, HTTPConnection)]
    finally:
        gc.enable()
    assert not left


async def test_a_path_is_unquoted_and_its_query_is_not(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open(f"GET /%65cho?a=%20 HTTP/1.1\r\n{HOST}X-One: 1\r\nX-ONE: 2\r\n\r\n")
        await raw.answer()
    [scope] = server.app.asked
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/echo", b"/%65cho", b"a=%20")
    assert (scope["method"], scope["http_version"], scope["scheme"]) == ("GET", "1.1", "http")
    assert scope["headers"] == [(b"host", b"here"), (b"x-one", b"1"), (b"x-one", b"2")]
    assert scope["client"][0] == "127.0.0.1"


async def test_http_1_0_gets_one_answer_which_ends_with_the_connection(bare: Bare) -> None:
    async with bare() as server:
        server.app.go_on.set()
        raw = await server.open("GET /pieces HTTP/1.0\r\n\r\n")
        answer = await raw.rest()
    assert answer.endswith(b"\r\n\r\nonetwothree")
    assert b"transfer-encoding" not in answer
    assert b"connection: close" in answer


async def test_who_asks_for_the_last_answer_gets_it_and_nothing_after_it(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open(f"GET / HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", GET)
        answer = await raw.rest()
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert b"400" not in answer


async def test_an_answer_in_pieces_leaves_as_it_comes(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open(f"GET /pieces HTTP/1.1\r\n{HOST}\r\n")
        head = await raw.until(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        assert await raw.until(b"two\r\n") == b"3\r\none\r\n3\r\ntwo\r\n"
        server.app.go_on.set()
        assert await raw.until(b"0\r\n\r\n") == b"5\r\nthree\r\n0\r\n\r\n"
        raw.send(GET)
        assert (await raw.answer())[0] == 200


async def test_head_and_204_have_no_body(bare: Bare) -> None:
    async with bare() as server:
        server.app.go_on.set()
        raw = await server.open(f"HEAD /early HTTP/1.1\r\n{HOST}\r\nGET /empty HTTP/1.1\r\n{HOST}\r\n")
        assert b"content-length: 5" in await raw.until(b"\r\n\r\n")
        assert (await raw.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 No Content")
        raw.send(f"HEAD /pieces HTTP/1.1\r\n{HOST}\r\n{GET}")
        await raw.until(b"\r\n\r\n")
        assert (await raw.answer())[0] == 200


async def test_a_client_that_asks_for_http_2_is_served_all_the_same(bare: Bare) -> None:
    async with bare() as server:
        wish = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "AAEAAEAAAAIAAAAA"}
        raw = await server.open(post("first", **wish), post("second"))
        assert [(await raw.answer())[2] for _ in range(2)] == [b"first", b"second"]
        raw.send(post("third", **wish)[:-2])
        await CLOCK.sleep(SHORT)
        raw.send("rd")
        assert (await raw.answer())[2] == b"third"
        raw.send(f"GET / HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert (await raw.answer())[0] == 200


async def test_who_waits_for_a_100_gets_it_when_the_body_is_wanted(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open(f"POST / HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert await raw.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.send("body")
        assert (await raw.answer())[2] == b"body"
        raw.send(f"POST /early HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        status, head, body = await raw.answer()
    assert (status, body) == (200, b"early")
    assert b"connection: close" in head


async def test_a_large_body_is_held_back_until_it_is_asked_for(bare: Bare) -> None:
    async with bare(body_timeout=SHORT) as server:
        raw = await server.open(f"POST /wait HTTP/1.1\r\n{HOST}Content-Length: 9000000\r\n\r\n", b"x" * 9_000_000)
        await server.until(lambda: server.app.asked)
        [(connection)] = server.server.state.watched
        await server.until(lambda: connection.flow.read_paused)
        await CLOCK.sleep(4 * SHORT)  # the client's time does not run while it is we who let it wait
        assert connection.flow.read_paused
        assert connection._newest._held < 500_000
        server.app.go_on.set()
        assert (await raw.answer())[2] == b"late"


# --- what is refused ----------------------------------------------------------------------------------------------

TWISTED = {
    "both lengths": f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both, the other way": f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "a length twice": f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two lengths": f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": f"POST / HTTP/1.1\r\n{HOST}Content-Length: 3, 3\r\n\r\nabc",
    "a length with a sign": f"POST / HTTP/1.1\r\n{HOST}Content-Length: +3\r\n\r\nabc",
    "a length below zero": f"POST / HTTP/1.1\r\n{HOST}Content-Length: -3\r\n\r\nabc",
    "a length that is none": f"POST / HTTP/1.1\r\n{HOST}Content-Length: \r\n\r\nabc",
    "a length without end": f"POST / HTTP/1.1\r\n{HOST}Content-Length: {'9' * 30}\r\n\r\nabc",
    "a space before the colon": f"POST / HTTP/1.1\r\n{HOST}Content-Length : 3\r\n\r\nabc",
    "a folded line": f"GET / HTTP/1.1\r\n{HOST}X: a\r\n b\r\n\r\n",
    "a folded coding": f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "compressed chunks": f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks before another protocol": f"POST / HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: h2c\r\n"
    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: xchunked\r\n\r\nabc",
    "a coding after chunks": f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked, identity\r\n\r\nabc",
    "a coding twice": f"POST / HTTP/1.1\r\n{HOST}" + "Transfer-Encoding: chunked\r\n" * 2 + "\r\n0\r\n\r\n",
    "line feeds alone": "GET / HTTP/1.1\nHost: here\n\n",
    "a carriage return": f"GET / HTTP/1.1\r\n{HOST}X: a\rb\r\n\r\n",
    "a null": f"GET / HTTP/1.1\r\n{HOST}X: a\0b\r\n\r\n",
    "a chunk's size that is none": CHUNKED + "zz\r\nabc\r\n0\r\n\r\n",
    "no host": "GET / HTTP/1.1\r\n\r\n",
    "two hosts": f"GET / HTTP/1.1\r\n{HOST}{HOST}\r\n",
    "no path": f"CONNECT here:80 HTTP/1.1\r\n{HOST}\r\n",
    "no HTTP": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": f"GET / HTTP/1.2\r\n{HOST}\r\n",
}


@pytest.mark.parametrize("shape", TWISTED)
async def test_what_two_servers_could_read_differently_is_refused_and_the_connection_ends(
    bare: Bare, shape: str
) -> None:
    async with bare() as server:
        raw = await server.open(TWISTED[shape].encode("latin-1"))
        status, head, body = await raw.answer()
        assert await raw.rest() == b""
    assert status in {400, 501}
    assert b"connection: close" in head
    assert why(body)
    assert not server.app.asked
    assert server.refused == [status]


async def test_a_version_that_is_not_known_is_refused(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open("GET /\r\n\r\n")
        assert (await raw.answer())[0] == 505


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (f"GET /{'a' * 8192} HTTP/1.1\r\n", 414),
        (f"GET / HTTP/1.1\r\n{HOST}" + "x: y\r\n" * 100 + "\r\n", 431),
        (f"GET / HTTP/1.1\r\n{HOST}x: {'y' * 66_000}\r\n", 431),
        (f"GET / HTTP/1.1\r\n{HOST}x: " + "y" * 66_000, 431),
        (CHUNKED + "0\r\n" + f"x: {'y' * 40_000}\r\n" * 3, 431),
    ],
    ids=["path", "many headers", "a large header", "a header without end", "trailers"],
)
async def test_heads_and_paths_have_bounds(bare: Bare, sent: str, status: int) -> None:
    async with bare() as server:
        raw = await server.open(sent)
        told, _, body = await raw.answer()
        assert await raw.rest() == b""
    assert told == status
    assert why(body)
    assert server.refused == [status]


async def test_a_head_just_below_its_bounds_is_served(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open(f"GET /?{'a' * 8190} HTTP/1.1\r\n{HOST}" + f"x: {'y' * 600}\r\n" * 99 + "\r\n")
        assert (await raw.answer())[0] == 200
        raw.send(post("z" * 300_000), GET)  # nor is what stood before it counted
        assert [(await raw.answer())[0] for _ in range(2)] == [200, 200]


async def test_a_declared_body_that_is_too_large_is_refused_before_it_is_read(bare: Bare) -> None:
    async with bare(max_body_bytes=1000) as server:
        raw = await server.open(f"POST / HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
        status, head, body = await raw.answer()
        assert await raw.rest() == b""
    assert status == 413
    assert head.startswith(b"HTTP/1.1 413")  # and no 100 before it
    assert "1000" in why(body)
    assert not server.app.asked
    assert server.refused == [413]


async def test_a_body_in_chunks_that_grows_too_large_is_refused_and_its_task_ended(bare: Bare) -> None:
    async with bare(max_body_bytes=1000) as server:
        raw = await server.open(CHUNKED, "3e8\r\n", "x" * 1000, "\r\n")
        await server.until(lambda: server.app.asked)
        raw.send("1\r\nx\r\n")
        status, _, _ = await raw.answer()
        assert await raw.rest() == b""
        await server.until(lambda: not server.server.state.tasks)
    assert status == 413
    assert server.app.left == [True]
    assert not server.app.bodies


async def test_a_request_that_is_refused_before_its_task_has_begun_leaves_none(bare: Bare) -> None:
    async with bare(max_body_bytes=3) as server:
        raw = await server.open(CHUNKED, "4\r\nabcd\r\n0\r\n\r\n")
        assert (await raw.answer())[0] == 413
        await server.until(lambda: not server.server.state.tasks)
    assert not server.app.asked


async def test_a_client_that_sends_all_of_it_first_reads_the_refusal_all_the_same(bare: Bare) -> None:
    async with bare(max_body_bytes=1000) as server:

        def ask() -> bytes:
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as blocking:
                blocking.sendall(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 20000000\r\n\r\n".encode())
                blocking.sendall(b"x" * 20_000_000)
                return b"".join(iter(lambda: blocking.recv(65536), b""))

        answer = await asyncio.to_thread(ask)
    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.endswith(b"}")


async def test_who_sends_without_end_after_a_refusal_is_cut(bare: Bare) -> None:
    async with bare(max_body_bytes=10, linger=SHORT) as server:
        raw = await server.open(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 99999999999\r\n\r\n")
        await raw.answer()
        sending = asyncio.create_task(flood(raw))
        await server.until(lambda: not server.connections)
        await sending


async def flood(raw: Any) -> None:
    try:
        while True:
            raw.send(b"x" * 1024)  # slowly: what is thrown away has a bound of its own
            await raw.writer.drain()
            await CLOCK.sleep(0.001)
    except ConnectionError:
        pass


async def test_a_refusal_waits_for_what_was_asked_before(bare: Bare) -> None:
    async with bare(linger=4 * SHORT) as server:
        raw, other = await server.open(), await server.open()
        await server.until(lambda: server.connections == 2)
        server.bound(header_timeout=SHORT, body_timeout=SHORT)
        raw.send(f"GET /wait HTTP/1.1\r\n{HOST}\r\nGET / HT")
        await server.until(lambda: server.app.asked)
        await CLOCK.sleep(3 * SHORT)
        raw.send("and more, which nobody reads")
        server.app.go_on.set()
        assert (await raw.answer())[2] == b"late"
        assert (await raw.answer())[0] == 408
        other.send(f"GET /wait HTTP/1.1\r\n{HOST}\r\n", post("abc")[:-1])
        assert (await other.answer())[2] == b"late"
        assert (await other.answer())[0] == 408
        assert await other.rest() == b""


async def test_more_requests_than_anybody_sends_ahead_are_refused(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open(f"GET /wait HTTP/1.1\r\n{HOST}\r\n", GET * 30)
        await server.until(lambda: server.app.asked)
        server.app.go_on.set()
        statuses = [(await raw.answer())[0] for _ in range(18)]
        assert await raw.rest() == b""
    assert statuses == [200] * 17 + [503]


async def test_a_body_that_is_refused_in_the_middle_of_its_answer_ends_the_connection(bare: Bare) -> None:
    async with bare(max_body_bytes=10) as server:
        raw = await server.open(f"POST /pieces HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n")
        await raw.until(b"two\r\n")
        raw.send("b\r\nxxxxxxxxxxx\r\n")
        assert await raw.rest() == b""  # not the end that a whole answer has
    assert server.app.left == [True]


async def test_a_body_nobody_read_ends_the_connection_in_good_order(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open(f"POST /early HTTP/1.1\r\n{HOST}Content-Length: 5000000\r\n\r\n")
        status, head, _ = await raw.answer()
        raw.send(b"x" * 5_000_000)
        assert await raw.rest() == b""
    assert status == 200
    assert b"connection: close" in head


# --- who is too slow ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", ["", "GET", f"GET / HTTP/1.1\r\n{HOST}X: "], ids=["nothing", "a part", "no end"])
async def test_a_head_that_does_not_come_is_answered_408_and_the_connection_ends(bare: Bare, sent: str) -> None:
    async with bare(header_timeout=SHORT) as server:
        raw = await server.open(sent)
        began = CLOCK.now()
        status, _, body = await raw.answer()
        assert await raw.rest() == b""
        assert SHORT * 0.8 < CLOCK.now() - began < PATIENCE
    assert status == 408
    assert "head" in why(body)
    assert server.refused == [408]


@pytest.mark.parametrize("head", ["GET / HTTP/1.1\r\nX: ", ""], ids=["a head", "empty lines"])
async def test_a_head_that_trickles_has_no_more_time_than_one_that_stalls(bare: Bare, head: str) -> None:
    async with bare(header_timeout=SHORT) as server:
        raw = await server.open()
        answered = asyncio.create_task(raw.answer())
        for byte in chain(head, cycle("x" if head else "\r\n")):  # without end
            raw.send(byte)
            await CLOCK.sleep(0.01)
            if answered.done():
                break
        assert (await answered)[0] == 408


async def test_a_later_head_has_the_same_time(bare: Bare) -> None:
    async with bare(linger=SHORT) as server:
        raw = await server.open(GET)
        await raw.answer()
        server.bound(header_timeout=SHORT)
        await CLOCK.sleep(3 * SHORT)  # between two requests a connection may rest
        raw.send("GET")
        assert (await raw.answer())[0] == 408


@pytest.mark.parametrize("sent", [post("abc")[:-1], CHUNKED + "3\r\na"], ids=["declared", "in chunks"])
async def test_a_body_that_does_not_come_is_answered_408_and_its_task_is_ended(bare: Bare, sent: str) -> None:
    async with bare(body_timeout=SHORT) as server:
        raw = await server.open(sent)
        began = CLOCK.now()
        status, _, body = await raw.answer()
        assert await raw.rest() == b""
        assert SHORT * 0.8 < CLOCK.now() - began < PATIENCE
        await server.until(lambda: not server.server.state.tasks)
    assert status == 408
    assert "body" in why(body)
    assert server.app.left == [True]


async def test_a_connection_rests_for_a_while_and_then_ends_without_a_word(bare: Bare) -> None:
    async with bare(idle=2 * SHORT) as server:
        raw = await server.open(GET)
        await raw.answer()
        began = CLOCK.now()
        assert await raw.rest() == b""
        assert SHORT < CLOCK.now() - began < PATIENCE
    assert not server.refused


@pytest.mark.parametrize("path", ["/flood", "/socket"])
async def test_a_client_that_takes_nothing_is_cut_and_holds_no_memory(bare: Bare, path: str) -> None:
    async with bare(stall=2 * SHORT) as server:
        raw = await shaken(server) if path == "/socket" else await server.open()
        raw.writer.transport.pause_reading()
        raw.send(frame(b"flood") if path == "/socket" else f"GET {path} HTTP/1.1\r\n{HOST}\r\n")
        await server.until(lambda: server.app.left)
        await server.until(lambda: not server.connections)
    assert server.app.left == [True]
    assert server.app.written < 30_000_000  # what the system's buffers take


async def test_a_goodbye_that_is_not_read_ends_all_the_same(bare: Bare) -> None:
    async with bare(stall=2 * SHORT, idle=SHORT) as server:
        raw = await server.open()
        raw.writer.transport.pause_reading()
        raw.writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        size = 5_000_000
        raw.send(f"POST / HTTP/1.1\r\n{HOST}Connection: close\r\nContent-Length: {size}\r\n\r\n", b"x" * size)
        await server.until(lambda: server.app.bodies)
        await server.until(lambda: not server.connections)


# --- who leaves ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/forever", "/pieces", "/flood"])
@pytest.mark.parametrize("how", ["resets", "closes"])
async def test_a_client_that_leaves_ends_its_task_at_once(bare: Bare, path: str, how: str) -> None:
    async with bare() as server:
        raw = await server.open(f"GET {path} HTTP/1.1\r\n{HOST}\r\n")
        await server.until(lambda: server.app.asked)
        raw.leave() if how == "resets" else raw.writer.close()
        await server.until(lambda: server.app.left)
    assert server.app.left == [True]


async def test_a_client_that_leaves_is_heard_of_behind_what_it_sent_ahead(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open(f"GET /forever HTTP/1.1\r\n{HOST}\r\n", GET, GET)
        await server.until(lambda: server.app.asked)
        raw.send(post("x" * 20_000))
        raw.writer.close()
        await server.until(lambda: server.app.left)
    assert len(server.app.asked) == 1


async def test_a_client_that_leaves_after_its_answer_ends_nothing(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open(f"GET /after HTTP/1.1\r\n{HOST}\r\n")
        assert await raw.rest()
        raw.leave()
        await server.until(lambda: not server.connections)
        [task] = server.server.state.tasks
        server.app.go_on.set()
        await server.until(task.done)
    assert not server.app.left


# --- routes that fail ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/boom", "/nothing", "/split"])
async def test_a_route_that_fails_is_a_500_that_tells_nothing(
    bare: Bare, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with bare() as server:
        raw = await server.open(f"GET {path} HTTP/1.1\r\n{HOST}\r\n")
        status, head, body = await raw.answer()
        assert await raw.rest() == b""
    assert status == 500
    assert why(body)
    assert b"evil" not in head
    assert server.refused == [500]
    assert "secret" not in caplog.text
    if path == "/boom":
        assert "ZeroDivisionError at " in caplog.text


@pytest.mark.parametrize("path", ["/half", "/longer"])
async def test_an_answer_that_is_not_whole_does_not_look_so(bare: Bare, path: str) -> None:
    async with bare() as server:
        raw = await server.open(f"GET {path} HTTP/1.1\r\n{HOST}\r\n")
        answer = await raw.rest()
    assert not answer.endswith(b"0\r\n\r\n")
    assert not answer.endswith(b"\r\n\r\ntwo")


async def test_a_route_that_answers_twice_is_told_so_and_its_first_answer_stands(
    bare: Bare, caplog: pytest.LogCaptureFixture
) -> None:
    async with bare() as server:
        raw = await server.open(f"GET /twice HTTP/1.1\r\n{HOST}\r\n")
        assert (await raw.answer())[2] == b"once"
        raw.send(GET)
        assert (await raw.answer())[0] == 200
    assert "RuntimeError at " in caplog.text


# --- how many -----------------------------------------------------------------------------------------------------


async def test_a_connection_too_many_is_an_honest_503(bare: Bare) -> None:
    async with bare(max_connections=2, linger=SHORT) as server:
        held = [await server.open("GET") for _ in range(2)]
        await server.until(lambda: server.connections == 2)
        raw = await server.open(GET)
        status, head, body = await raw.answer()
        assert await raw.rest() == b""
        held[0].leave()
        await server.until(lambda: server.connections == 1)
        assert (await (await server.open(GET)).answer())[0] == 200
    assert status == 503
    assert b"\r\nretry-after: 1\r\n" in head
    assert why(body)
    assert server.refused == [503]


async def test_a_connection_at_rest_makes_room_for_a_new_one(bare: Bare) -> None:
    async with bare(max_connections=2) as server:
        rested = [await server.open(GET) for _ in range(2)]
        for raw in rested:
            await raw.answer()
        assert (await (await server.open(GET)).answer())[0] == 200
        assert await rested[0].rest() == b""


async def test_connections_beyond_all_measure_are_cut(bare: Bare) -> None:
    async with bare(max_connections=1, linger=5.0) as server:
        for _ in range(2):
            await server.open("GET")
        await server.until(lambda: server.connections == 2)
        raw = await server.open()
        with suppress(ConnectionError):
            assert await raw.rest() == b""
        assert server.connections == 2


async def test_a_thousand_idle_sockets_do_not_slow_the_others(bare: Bare) -> None:
    async with bare() as server:
        server.server._timer.cancel()  # once a second it looks at all of them, however slow the machine is
        raw = await server.open()

        async def steps() -> int:
            with counted() as so_far:
                for _ in range(50):
                    raw.send(GET)
                    await raw.answer()
            return so_far.count

        alone = await steps()
        for _ in range(1000):
            await server.open("GET / HT")
        await server.until(lambda: server.connections == 1001)
        server.server.state.sweep()
        beside = await steps()
    assert beside < 1.2 * alone


def test_bounds_are_looked_at_once_a_second_or_oftener() -> None:
    assert Guards().interval == 0.5
    assert Guards(linger=10.0).interval == 1.0
    assert Guards(header_timeout=0.2).interval == 0.05
    assert Guards(idle=0.01).interval == 0.02


# --- WebSockets ---------------------------------------------------------------------------------------------------

SHAKE = (
    f"GET /socket HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(text: bytes, opcode: int = 1) -> bytes:
    """Return a frame, masked with zeros."""
    return bytes([0x80 | opcode, 0x80 | len(text), 0, 0, 0, 0]) + text


async def shaken(server: Any) -> Any:
    raw = await server.open(SHAKE)
    assert (await raw.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return raw


async def test_a_web_socket_speaks_and_its_connection_counts(bare: Bare) -> None:
    async with bare(max_connections=1) as server:
        raw = await shaken(server)
        raw.send(frame(b"hello"))
        assert await raw.until(b"hello") == b"\x81\x05hello"
        assert (await (await server.open(GET)).answer())[0] == 503
        raw.send(frame(b"", 8))
        assert (await raw.rest())[:1] == b"\x88"
        await server.until(lambda: server.connections <= 1)


@pytest.mark.parametrize("how", ["resets", "closes"])
async def test_a_client_that_leaves_a_web_socket_ends_its_task_at_once(bare: Bare, how: str) -> None:
    async with bare() as server:
        raw = await shaken(server)
        raw.send(frame(b"forever"))
        await CLOCK.sleep(SHORT / 4)
        raw.leave() if how == "resets" else raw.writer.close()
        await server.until(lambda: server.app.left)
    assert server.app.left == [True]


async def test_a_web_socket_goes_on_when_its_client_reads_again(bare: Bare) -> None:
    async with bare() as server:
        raw = await shaken(server)
        raw.writer.transport.pause_reading()
        raw.send(frame(b"flood"))
        before = -1
        while server.app.written > before:
            before = server.app.written
            await CLOCK.sleep(SHORT)
        raw.writer.transport.resume_reading()
        taken = asyncio.create_task(raw.rest())
        await server.until(lambda: server.app.written > before + 1_000_000)
        taken.cancel()


async def test_a_web_socket_whose_client_does_not_say_goodbye_is_closed_all_the_same(bare: Bare) -> None:
    async with bare(stall=SHORT) as server:
        raw = await shaken(server)
        raw.send(frame(b"bye"))
        assert (await raw.until(b"\x03\xe8")).startswith(b"\x88")
        server.server.stop(0.0)
        assert await raw.rest() == b""


async def test_a_web_socket_that_fails_is_closed_and_tells_nothing(
    bare: Bare, caplog: pytest.LogCaptureFixture
) -> None:
    async with bare() as server:
        raw = await shaken(server)
        raw.send(frame(b"boom"))
        assert (await raw.rest())[:1] == b"\x88"
        other = await server.open(SHAKE.replace("/socket", "/boom"))
        assert (await other.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 500")
    assert "ZeroDivisionError at " in caplog.text


async def test_a_web_socket_cannot_begin_behind_a_request_that_is_not_answered(bare: Bare) -> None:
    async with bare() as server:
        server.app.go_on.set()
        raw = await server.open(f"GET /wait HTTP/1.1\r\n{HOST}\r\n", SHAKE)
        assert (await raw.answer())[2] == b"late"
        assert (await raw.answer())[0] == 400


@pytest.mark.parametrize(
    "head",
    [
        f"POST /socket HTTP/1.1\r\n{HOST}Content-Length: 5\r\n",
        f"GET /socket HTTP/1.1\r\n{HOST}X-Long: {'x' * 20_000}\r\n",
        f"GET /socket HTTP/1.1\r\n{HOST}Content-Length: 5\r\n",
    ],
)
async def test_what_begins_no_web_socket_is_refused_and_its_connection_ends(bare: Bare, head: str) -> None:
    async with bare() as server:
        raw = await server.open(head, SHAKE.partition(HOST)[2], "hello")
        assert (await raw.answer())[0] == 400
        assert await raw.rest() == b""
        await server.until(lambda: not server.connections)
        assert server.refused == [400]
