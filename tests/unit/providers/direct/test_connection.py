"""Real sockets: what the other side may do to a connection, and what is told of it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from tests.patience import PATIENCE, until

from llm.core.exceptions import LLMConnectionError, LLMException
from llm.providers.dialect import Headers
from llm.providers.direct.transport import DirectTransport
from llm.utils.clock import SystemClock
from llm.utils.redact import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llm.core.protocols import Reply

CLOCK = SystemClock()
HEADERS = Headers({}, "authorization", Secret("sk-test-0123456789abcdef"), prefix="Bearer ")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
LARGE = b"0123456789abcdef" * 512 * 1024  # 8 MiB: more than any socket's buffer


class Peer:
    """The other side, whose every step is the test's; a connection is `act`'s until that returns."""

    def __init__(self) -> None:
        self.url = ""
        self.act: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None
        self.open: list[asyncio.StreamWriter] = []
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.ended = 0
        self.now = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.append(writer)
        self.now += 1
        try:
            assert self.act is not None
            await self.act(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended += 1
            self.now -= 1
            writer.transport.abort()

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        length = [line for line in head.split(b"\r\n") if line.startswith(b"content-length")]
        self.bodies.append(await reader.readexactly(int(length[0].split(b":")[1])) if length else b"")
        return head

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self.request(reader)
            writer.write(OK)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    peer.act = peer.serve
    server = await asyncio.start_server(peer.handle, "127.0.0.1", 0)
    peer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    yield peer
    server.close()
    for writer in peer.open:
        writer.transport.abort()
    await until(lambda: peer.now == 0)


async def post(transport: DirectTransport, url: str, body: bytes = b"{}") -> Reply:
    async with CLOCK.timeout(PATIENCE):
        return await transport.request("POST", url, headers=HEADERS, body=body)


async def ask(transport: DirectTransport, url: str, body: bytes = b"{}") -> bytes:
    reply = await post(transport, url, body)
    async with CLOCK.timeout(PATIENCE):
        return await reply.read()


async def fails(transport: DirectTransport, url: str, body: bytes = b"{}") -> LLMConnectionError:
    with pytest.raises(LLMException) as caught:
        await ask(transport, url, body)
    assert isinstance(caught.value, LLMConnectionError)
    return caught.value


def reset(writer: asyncio.StreamWriter) -> None:
    """Send a reset in place of an orderly end."""
    own: socket.socket = writer.get_extra_info("socket")
    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# --- kept connections


async def test_the_last_used_connection_serves_first(transport: DirectTransport, peer: Peer) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(ask(transport, peer.url))
    for _ in range(10):
        await ask(transport, peer.url)
    assert len(peer.open) == 5
    assert len(peer.heads) == 15


@pytest.mark.parametrize("end", [asyncio.StreamWriter.close, reset], ids=["closed", "reset"])
async def test_a_connection_closed_while_idle_is_noticed_before_use(
    transport: DirectTransport, peer: Peer, end: Callable[[asyncio.StreamWriter], None]
) -> None:
    await ask(transport, peer.url)
    end(peer.open[0])
    await CLOCK.sleep(0.05)
    assert await ask(transport, peer.url) == b"{}"
    assert len(peer.open) == 2


def test_an_end_that_the_loop_has_not_seen_yet_is_noticed_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)

        async def scenario() -> int:
            transport = DirectTransport(trust_env=False)
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
            asking = asyncio.create_task(ask(transport, url))
            first = await asyncio.to_thread(accepted, listening)
            assert await asking == b"{}"
            # Nothing is awaited between the end and the next request, so the loop cannot have heard of it.
            first.close()
            again = transport.request("POST", url, headers=HEADERS, body=b"{}")
            asking = asyncio.create_task(read(again))
            second = await asyncio.to_thread(accepted, listening)
            assert await asking == b"{}"
            second.close()
            await transport.close()
            return 2

        assert asyncio.run(scenario()) == 2


async def read(asking: Awaitable[Reply]) -> bytes:
    return await (await asking).read()


def accepted(listening: socket.socket) -> socket.socket:
    connection, _ = listening.accept()
    connection.recv(65536)
    connection.sendall(OK)
    return connection


async def test_a_connection_that_speaks_unasked_is_not_used(transport: DirectTransport, peer: Peer) -> None:
    await ask(transport, peer.url)
    peer.open[0].write(OK)
    await CLOCK.sleep(0.05)
    assert await ask(transport, peer.url) == b"{}"
    assert len(peer.open) == 2


async def test_a_request_that_may_have_arrived_is_not_repeated(transport: DirectTransport, peer: Peer) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.request(reader)
        writer.write(OK)
        await peer.request(reader)

    peer.act = once
    await ask(transport, peer.url)
    error = await fails(transport, peer.url)
    assert error.sent
    assert error.retryable
    assert len(peer.heads) == 2


async def test_a_request_of_which_nothing_left_goes_to_a_new_connection(transport: DirectTransport, peer: Peer) -> None:
    await ask(transport, peer.url)
    home = transport._homes[asyncio.get_running_loop()]  # pyright: ignore[reportPrivateUsage]  # the socket is nowhere else
    [connection] = home.pool._all  # pyright: ignore[reportPrivateUsage]
    own = connection._transport  # pyright: ignore[reportPrivateUsage]
    assert own is not None
    with socket.socket(fileno=os.dup(own.get_extra_info("socket").fileno())) as same:
        same.shutdown(socket.SHUT_WR)  # what is written now fails at once, before anything has come from the peer
    assert await ask(transport, peer.url) == b"{}"
    assert len(peer.open) == 2
    assert len(peer.heads) == 2


async def test_the_servers_own_bound_on_idle_connections_is_kept(transport: DirectTransport, peer: Peer) -> None:
    async def brief(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await peer.request(reader)
            writer.write(OK.replace(b"\r\n\r\n", b"\r\nkeep-alive: timeout=1, max=9\r\n\r\n"))

    peer.act = brief
    await ask(transport, peer.url)
    await ask(transport, peer.url)
    assert len(peer.open) == 2


# --- the request's body


async def test_a_body_larger_than_the_sockets_buffer_arrives_whole(transport: DirectTransport, peer: Peer) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await CLOCK.sleep(0.05)
        await peer.serve(reader, writer)

    peer.act = slow
    assert await ask(transport, peer.url, LARGE) == b"{}"
    assert await ask(transport, peer.url, b"small") == b"{}"
    assert peer.bodies == [LARGE, b"small"]
    assert len(peer.open) == 1


async def test_a_refusal_in_the_middle_of_the_body_is_read_and_the_rest_not_sent(
    transport: DirectTransport, peer: Peer
) -> None:
    taken: list[int] = [0]
    refused = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\n{")
        await refused.wait()
        with suppress(TimeoutError):
            async with CLOCK.timeout(0.2):
                while data := await reader.read(1 << 20):
                    taken[0] += len(data)
        writer.write(b"}")
        await reader.read()

    peer.act = refuse
    reply = await post(transport, peer.url, LARGE)
    assert reply.status == 413
    refused.set()
    assert await reply.read() == b"{}"
    await until(lambda: peer.ended == 1)
    assert taken[0] < len(LARGE)
    peer.act = peer.serve
    assert await ask(transport, peer.url) == b"{}"
    assert len(peer.open) == 2


async def test_a_refusal_and_a_reset_in_the_middle_of_the_body_is_read(transport: DirectTransport, peer: Peer) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\n{}")
        await CLOCK.sleep(0.05)

    peer.act = refuse
    reply = await post(transport, peer.url, LARGE)
    assert reply.status == 413
    assert await reply.read() == b"{}"


async def test_a_reset_in_the_middle_of_the_body_is_told(transport: DirectTransport, peer: Peer) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reset(writer)

    peer.act = cut
    error = await fails(transport, peer.url, LARGE)
    assert error.sent


async def test_an_answer_before_the_bodys_end_does_not_leave_its_rest_for_the_next_request(
    transport: DirectTransport, peer: Peer
) -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await answered.wait()

    answered = asyncio.Event()
    peer.act = hasty
    assert await ask(transport, peer.url, LARGE) == b"{}"
    answered.set()
    peer.act = peer.serve
    assert await ask(transport, peer.url) == b"{}"
    assert len(peer.open) == 2


# --- ends in every phase


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nx: y\r\n", OK[:-1]])
@pytest.mark.parametrize("how", ["close", "reset", "half"])
async def test_an_end_in_any_phase_is_a_typed_error_and_never_a_hang(
    transport: DirectTransport, peer: Peer, said: bytes, how: str
) -> None:
    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.request(reader)
        writer.write(said)
        await writer.drain()
        if how == "reset":
            await CLOCK.sleep(0.02)
            reset(writer)
        if how == "half":
            writer.write_eof()
            await reader.read()  # until the client has gone too

    peer.act = end
    error = await fails(transport, peer.url)
    assert error.sent
    await until(lambda: peer.ended == 1)


async def test_a_half_closed_socket_does_not_wait_for_a_body_that_nobody_takes(
    transport: DirectTransport, peer: Peer
) -> None:
    taken: list[int] = [0]
    told = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        await told.wait()
        while data := await reader.read(1 << 20):
            taken[0] += len(data)

    peer.act = deaf
    assert (await fails(transport, peer.url, LARGE)).sent
    told.set()
    await until(lambda: peer.ended == 1)
    assert taken[0] < len(LARGE)


async def test_leaving_while_the_head_is_awaited_closes_upstream(transport: DirectTransport, peer: Peer) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await peer.request(reader)
        await reader.read()

    peer.act = silent
    asking = asyncio.create_task(post(transport, peer.url))
    await until(lambda: len(peer.heads) == 1)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    await until(lambda: peer.ended == 1)


async def test_closing_the_transport_ends_what_runs_and_what_is_idle(transport: DirectTransport, peer: Peer) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await peer.request(reader)
        await reader.read()

    peer.act = silent
    asking = [asyncio.create_task(fails(transport, peer.url)) for _ in range(2)]
    await until(lambda: len(peer.heads) == 2)
    peer.act = peer.serve
    await ask(transport, peer.url)
    assert peer.now == 3
    await transport.close()
    for task in asking:
        assert (await task).sent
    await until(lambda: peer.now == 0)


# --- slow readers


async def test_a_slow_reader_holds_the_server_up_and_gets_all_in_the_end(
    transport: DirectTransport, peer: Peer
) -> None:
    sent: list[int] = [0]

    async def much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (4 * len(LARGE)))
        for _ in range(4 * 128):
            writer.write(LARGE[: len(LARGE) // 128])
            await writer.drain()
            sent[0] += len(LARGE) // 128
        await peer.serve(reader, writer)

    peer.act = much
    reply = await post(transport, peer.url)
    held = -1
    while held != sent[0]:
        held = sent[0]
        await CLOCK.sleep(0.1)
    assert held < 3 * len(LARGE)
    async with CLOCK.timeout(PATIENCE):
        body = await reply.read()
    assert body == LARGE * 4
    assert await ask(transport, peer.url) == b"{}"
    assert len(peer.open) == 1


async def test_two_readers_of_one_answer_are_told(transport: DirectTransport, peer: Peer) -> None:
    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.request(reader)
        writer.write(OK[:-1])
        await reader.read()

    peer.act = begin
    reply = await post(transport, peer.url)
    await reply.chunk()
    waiting = asyncio.create_task(reply.chunk())
    await CLOCK.sleep(0)
    with pytest.raises(RuntimeError, match="two readers"):
        await reply.chunk()
    reply.close()
    with pytest.raises(LLMConnectionError):
        await waiting


async def test_a_read_that_is_cancelled_loses_nothing(transport: DirectTransport, peer: Peer) -> None:
    go = asyncio.Event()

    async def later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.request(reader)
        writer.write(OK[:-2])
        await go.wait()
        writer.write(OK[-2:])
        await reader.read()

    peer.act = later
    reply = await post(transport, peer.url)
    reading = asyncio.create_task(reply.chunk())
    await CLOCK.sleep(0.01)
    reading.cancel()
    await asyncio.wait([reading])
    go.set()
    assert await reply.read() == b"{}"
