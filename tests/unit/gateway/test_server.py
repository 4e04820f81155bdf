"""The server's end: what runs may end, what is asked meanwhile is refused, and nothing is left."""

# ruff: noqa: ANN401 - ASGI's messages, and doubles whose kind a test knows

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import PATIENCE
from uvicorn.server import ServerState

from llm.core.exceptions import LLMConfigurationError
from llm.gateway.guards import Guards
from llm.gateway.listening import bind
from llm.gateway.protocol import HTTPConnection
from llm.gateway.server import GatewayServer
from llm.gateway.web_socket import WebSocket
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    Bare = Callable[..., AbstractAsyncContextManager[Any]]

CLOCK = SystemClock()
HOST = "Host: here\r\n"
GET = f"GET / HTTP/1.1\r\n{HOST}\r\n"
SHORT = 0.08  # seconds


def get(path: str) -> str:
    return f"GET {path} HTTP/1.1\r\n{HOST}\r\n"


async def test_an_end_lets_what_runs_end_and_is_over_with_it(bare: Bare) -> None:
    async with bare() as server:
        late, streamed = await server.open(get("/wait")), await server.open(get("/pieces"))
        await streamed.until(b"two\r\n")
        server.server.stop(60.0)
        server.server.stop(0.0)  # once is enough
        await CLOCK.sleep(SHORT)
        assert not server.served.done()
        assert server.app.draining
        server.app.go_on.set()
        status, head, body = await late.answer()
        assert (await streamed.rest()).endswith(b"three\r\n0\r\n\r\n")
        assert await late.rest() == b""
        async with CLOCK.timeout(PATIENCE):
            await server.served
    assert (status, body) == (200, b"late")
    assert b"connection: close" in head
    assert not server.app.ended


async def test_nobody_new_comes_in_who_asks_gets_a_last_answer_and_who_rests_is_sent_away(bare: Bare) -> None:
    async with bare() as server:
        running, kept, rests = [await server.open(head) for head in (get("/wait"), GET[:5], GET)]
        await rests.answer()
        await server.until(lambda: len(server.app.asked) == 2)
        server.server.stop(60.0)
        await server.until(lambda: server.app.draining)
        with pytest.raises(ConnectionError):
            await server.open()
        assert await rests.rest() == b""
        kept.send(GET[5:])
        _, head, _ = await kept.answer()
        assert b"connection: close" in head
        assert await kept.rest() == b""
        server.app.go_on.set()
        assert (await running.answer())[2] == b"late"


async def test_who_is_to_leave_is_answered_for_the_last_time_and_others_are_still_served(bare: Bare) -> None:
    async with bare() as server:
        kept = await server.open(GET)
        _, head, _ = await kept.answer()
        assert b"connection: close" not in head
        server.server.leave()
        kept.send(GET)
        status, head, _ = await kept.answer()
        assert status == 200
        assert b"connection: close" in head
        assert await kept.rest() == b""
        assert (await (await server.open(GET)).answer())[0] == 200


async def test_at_the_deadline_what_is_left_is_ended_and_then_cut(bare: Bare) -> None:
    async with bare() as server:
        waits, streams = await server.open(get("/forever")), await server.open(get("/pieces"))
        await streams.until(b"two\r\n")
        began = CLOCK.now()
        server.server.stop(SHORT)
        assert (await waits.answer())[0] == 503  # by the server: this application tells nobody
        assert not (await streams.rest()).endswith(b"0\r\n\r\n")
        await server.served
        assert SHORT < CLOCK.now() - began < PATIENCE
    assert server.app.ended
    assert server.app.left == [False, False]
    assert server.refused == [503]


async def test_with_nothing_to_do_it_ends_at_once_whoever_is_connected(bare: Bare) -> None:
    async with bare() as server:
        rests, silent, begun = await server.open(GET), await server.open(), await server.open("GET")
        await rests.answer()
        await server.until(lambda: server.connections == 3)
        await CLOCK.sleep(SHORT)
        server.server.stop(60.0)
        async with CLOCK.timeout(PATIENCE):
            assert [await raw.rest() for raw in (rests, silent, begun)] == [b"", b"", b""]
            await server.served


async def test_who_reads_slowly_has_until_the_deadline(bare: Bare) -> None:
    async with bare() as server:
        size = 9_000_000
        raw = await server.open()
        raw.writer.transport.pause_reading()
        raw.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: {size}\r\n\r\n", b"x" * size)
        await server.until(lambda: server.app.bodies)
        server.server.stop(60.0)
        await CLOCK.sleep(2 * SHORT)
        raw.writer.transport.resume_reading()
        assert len((await raw.answer())[2]) == size
        await server.served


async def test_who_reads_nothing_is_cut_at_the_deadline(bare: Bare) -> None:
    async with bare() as server:
        size = 9_000_000
        raw = await server.open()
        raw.writer.transport.pause_reading()
        raw.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: {size}\r\n\r\n", b"x" * size)
        await server.until(lambda: server.app.bodies)
        server.server.stop(2 * SHORT)
        async with CLOCK.timeout(PATIENCE):  # it would be cut after a minute, if not for the deadline
            await server.served


async def test_a_web_socket_whose_application_stays_is_closed_at_the_deadline(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open(
            get("/socket")[:-2],
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        await raw.until(b"\r\n\r\n")
        server.server.stop(SHORT)
        assert await raw.rest() == b"\x88\x02\x03\xf4"  # 1012: clients may come back
        await server.served


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_a_web_socket_that_pings_and_reads_nothing_is_not_heard_for_long(bare: Bare) -> None:
    async with bare() as server:
        raw = await server.open(
            get("/socket")[:-2],
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        await raw.until(b"\r\n\r\n")
        raw.writer.transport.pause_reading()
        ping = b"\x89\xfd" + bytes(4) + b"x" * 125  # masked, with as much as it may hold
        for _ in range(40):
            raw.send(b"", ping * 4000)  # half a megabyte
            await CLOCK.sleep(0.005)
        [socket_] = [each for each in server.server.state.watched if isinstance(each, WebSocket)]
        assert socket_.transport.get_write_buffer_size() < 2_000_000
        raw.writer.transport.abort()


async def test_a_stop_before_it_listens_is_heard() -> None:
    class App:
        draining = False

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            """Is never asked."""

        def end_all(self) -> None:
            """Has nothing to end."""

    guards = Guards()
    server = GatewayServer(App(), lambda: guards)
    server.stop(30.0)
    await server.serve([socket.create_server(("127.0.0.1", 0))])
    assert not server.state.watched


async def test_an_address_that_another_program_took_meanwhile_is_told_of(bare: Bare) -> None:
    [first] = bind("127.0.0.1", 0)
    [second] = bind(*first.getsockname())  # which nobody refuses before one of them listens
    first.listen()
    async with bare() as server:
        other = GatewayServer(server.app, server.server._guards)
        with pytest.raises(LLMConfigurationError, match=r"gateway\.port.*--port"):
            await other.serve([second])
    first.close()
    second.close()


@pytest.mark.parametrize("protocol", [HTTPConnection, WebSocket])
async def test_its_protocols_are_for_no_other_server(bare: Bare, protocol: Any) -> None:
    async with bare() as server:
        with pytest.raises(TypeError, match=r"llm\.gateway"):
            protocol(server.server.config, ServerState(), {})
