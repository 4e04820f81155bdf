from __future__ import annotations

import asyncio
import gzip
import os
import socket
import traceback
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from tests.patience import PATIENCE

from llm.core.exceptions import LLMConnectionError, LLMException, LLMServerError, LLMTimeoutError
from llm.providers.dialect import Headers
from llm.providers.direct.place import place_of
from llm.providers.direct.transport import DirectTransport
from llm.utils.clock import SystemClock
from llm.utils.redact import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.unit.providers.conftest import Server

    from llm.core.protocols import Reply

CLOCK = SystemClock()
KEY = Secret("sk-test-0123456789abcdef")
HEADERS = Headers({"content-type": "application/json"}, "authorization", KEY, prefix="Bearer ")


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
async def raw() -> AsyncIterator[Raw]:
    """A server that sends exactly the bytes that a test wants, and then cuts or resets."""
    raw = Raw()
    server = await asyncio.start_server(raw.handle, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    yield raw
    server.close()
    await server.wait_closed()
    await raw.idle.wait()


class Raw:
    def __init__(self) -> None:
        self.url = ""
        self.sends: list[bytes] = []
        self.reset = False
        self.idle = asyncio.Event()
        self.idle.set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.idle.clear()
        await reader.read(65536)
        for piece in self.sends:
            writer.write(piece)
            await CLOCK.sleep(0.01)
        if self.reset:
            writer.transport.abort()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.idle.set()


def leaks(error: BaseException) -> bool:
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    return KEY.reveal() in shown


async def fails(transport: DirectTransport, url: str) -> LLMException:
    with pytest.raises(LLMException) as caught:
        await read(transport, url)
    assert not leaks(caught.value)
    return caught.value


async def read(transport: DirectTransport, url: str) -> bytes:
    return await (await post(transport, url)).read()


async def post(transport: DirectTransport, url: str) -> Reply:
    return await transport.request("POST", url, headers=HEADERS, body=b"{}")


async def test_a_refused_connection_was_certainly_not_sent(transport: DirectTransport, unused_port: int) -> None:
    error = await fails(transport, f"http://127.0.0.1:{unused_port}/")
    assert isinstance(error, LLMConnectionError)
    assert not error.sent
    assert error.retryable


async def test_a_host_that_does_not_exist_was_certainly_not_sent(transport: DirectTransport) -> None:
    error = await fails(transport, "http://host.invalid/")
    assert isinstance(error, LLMConnectionError)
    assert not error.sent


async def test_a_reset_before_the_head_may_have_been_sent(transport: DirectTransport, raw: Raw) -> None:
    raw.reset = True
    error = await fails(transport, raw.url)
    assert isinstance(error, LLMConnectionError)
    assert error.sent


@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize(
    "sends",
    [
        [b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", b'{"a"'],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b'4\r\n{"a"\r\n'],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b'4\r\n{"a"\r\nnonsense'],
        [b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 8\r\n\r\n", b"not gzip"],
        [b"HTTP/1.1 200 OK\r\ncontent-le"],
        [b"not even HTTP\r\n\r\n"],
    ],
)
async def test_an_answer_cut_short_is_never_a_whole_one(
    transport: DirectTransport, raw: Raw, sends: list[bytes], ending: str
) -> None:
    raw.sends, raw.reset = sends, ending == "reset"
    error = await fails(transport, raw.url)
    assert isinstance(error, LLMConnectionError)
    assert error.sent


async def test_what_came_before_a_break_is_read_before_the_error(transport: DirectTransport, raw: Raw) -> None:
    raw.sends = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"5\r\nfirst\r\n", b"6\r\nsecond\r\n"]
    reply = await post(transport, raw.url)
    assert await reply.chunk() == b"first"
    await CLOCK.sleep(0.1)
    assert reply.waiting()
    assert await reply.chunk() == b"second"
    with pytest.raises(LLMConnectionError):
        await reply.chunk()


async def test_a_connection_that_is_never_made_times_out_in_its_phase() -> None:
    with socket.socket() as full, ExitStack() as fillers:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            filler = fillers.enter_context(socket.socket())
            filler.settimeout(0)
            filler.connect_ex(full.getsockname())
        transport = DirectTransport(connect_timeout=0.2, trust_env=False)
        started = CLOCK.now()
        error = await fails(transport, f"http://127.0.0.1:{full.getsockname()[1]}/")
        assert isinstance(error, LLMTimeoutError)
        assert (error.phase, error.sent, error.retryable) == ("connect", False, True)
        assert CLOCK.now() - started < PATIENCE
        await transport.close()


async def test_connections_are_used_again(transport: DirectTransport, server: Server) -> None:
    server.says(b"{}")
    for _ in range(3):
        reply = await post(transport, server.url)
        assert await reply.read() == b"{}"
        reply.close()
    assert len({request.transport for request in server.requests}) == 1


async def test_a_reply_closed_before_its_end_cuts_the_connection(transport: DirectTransport, server: Server) -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 100)
                await CLOCK.sleep(0.01)
        finally:
            gone.set()

    server.answer = endless
    reply = await post(transport, server.url)
    await reply.chunk()
    reply.close()
    async with CLOCK.timeout(PATIENCE):
        await gone.wait()
    with pytest.raises(LLMConnectionError):
        await reply.chunk()


async def test_a_read_under_way_raises_when_the_reply_is_closed(transport: DirectTransport, server: Server) -> None:
    hold = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await hold.wait()
        return response

    server.answer = silent
    reply = await post(transport, server.url)
    reading = asyncio.create_task(reply.chunk())
    await CLOCK.sleep(0.01)
    reply.close()
    with pytest.raises(LLMConnectionError):
        await reading
    hold.set()


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_a_body_over_the_cap_is_refused_packed_or_not(server: Server, encoding: str) -> None:
    body = b"0" * 1_000_000
    if encoding == "gzip":
        server.says(gzip.compress(body), content_encoding="gzip")
    else:
        server.says(body)
    transport = DirectTransport(max_body_bytes=100_000, trust_env=False)
    error = await fails(transport, server.url)
    assert isinstance(error, LLMServerError)
    assert "100000 bytes" in str(error)
    await transport.close()


async def test_a_packed_body_is_unpacked(transport: DirectTransport, server: Server) -> None:
    server.says(gzip.compress(b'{"a": 1}'), content_encoding="gzip")
    reply = await post(transport, server.url)
    assert await reply.read() == b'{"a": 1}'


async def test_redirects_are_not_followed_and_cookies_not_kept(transport: DirectTransport, server: Server) -> None:
    server.says(b"", status=307, location="http://elsewhere.invalid/", set_cookie="a=b")
    reply = await post(transport, server.url)
    await reply.read()
    assert reply.status == 307
    await post(transport, server.url)
    assert len(server.requests) == 2
    assert "cookie" not in server.requests[1].headers


async def test_a_cancelled_request_shows_no_key(transport: DirectTransport, server: Server) -> None:
    hold = asyncio.Event()

    async def silent(_: web.Request) -> web.StreamResponse:
        await hold.wait()
        return web.Response()

    server.answer = silent
    asking = asyncio.create_task(post(transport, server.url))
    while not server.requests:
        await CLOCK.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await asking
    assert not leaks(caught.value)
    hold.set()


async def test_a_header_that_http_refuses_shows_no_key(transport: DirectTransport, server: Server) -> None:
    headers = Headers({"x-bad": "a\r\nb"}, "authorization", KEY, prefix="Bearer ")
    with pytest.raises(LLMConnectionError) as caught:
        await transport.request("POST", server.url, headers=headers)
    assert not leaks(caught.value)
    assert not caught.value.retryable
    assert not caught.value.sent


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_a_forked_child_takes_nothing_from_its_parent(fresh_python: Callable[[str], str]) -> None:
    said = fresh_python("""
import asyncio, os, sys, threading, warnings
sys.path.insert(0, "src")
from llm.providers.direct.transport import DirectTransport
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads

go = asyncio.Event()

async def serve(reader, writer):
    await reader.readuntil(b"{}")
    writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 4\\r\\n\\r\\n{1")
    await go.wait()
    writer.write(b"2}")
    await reader.read()
    writer.close()

async def begin():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    transport = DirectTransport(trust_env=False)
    port = server.sockets[0].getsockname()[1]
    reply = await transport.request("POST", f"http://127.0.0.1:{port}/", headers={}, body=b"{}")
    await reply.chunk()
    return server, transport, reply

async def end(server, transport, reply):
    go.set()
    async with asyncio.timeout(20.0):
        print(await reply.read())
    await transport.close()
    server.close()
    await asyncio.sleep(0.1)

loop = asyncio.new_event_loop()
thread = threading.Thread(target=loop.run_forever)
thread.start()
parts = asyncio.run_coroutine_threadsafe(begin(), loop).result()
child = os.fork()
if child == 0:
    parts[2].close()
    asyncio.run(parts[1].close())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
try:
    asyncio.run_coroutine_threadsafe(end(*parts), loop).result()
finally:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
loop.close()
""")
    assert said == "b'2}'\n"


async def test_a_closed_transport_opens_no_more(transport: DirectTransport, server: Server) -> None:
    await transport.close()
    with pytest.raises(LLMConnectionError, match="closed"):
        await post(transport, server.url)


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    place_of.cache_clear()
    yield monkeypatch
    place_of.cache_clear()


async def test_the_proxy_of_the_environment_is_used(server: Server, no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("http_proxy", server.url)
    server.says(b"{}")
    transport = DirectTransport()
    reply = await post(transport, "http://vendor.invalid/v1")
    assert await reply.read() == b"{}"
    assert server.requests[0].headers["host"] == "vendor.invalid"
    await transport.close()


def test_a_proxys_password_goes_to_the_proxy_and_is_not_shown(no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("https_proxy", "http://ann:proxy-pass@127.0.0.1:3128")
    proxy = place_of("https://vendor.invalid/v1", trust_env=True).origin.proxy
    assert proxy is not None
    assert (proxy.host, proxy.port, proxy.secure) == ("127.0.0.1", 3128, False)
    assert proxy.authorization == b"Basic YW5uOnByb3h5LXBhc3M="
    assert "proxy-pass" not in repr(proxy)
    no_proxies.setenv("no_proxy", "vendor.invalid")
    place_of.cache_clear()
    assert place_of("https://vendor.invalid/v1", trust_env=True).origin.proxy is None
