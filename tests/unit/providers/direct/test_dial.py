"""Ways to a server: names, time, TLS and proxies."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.patience import PATIENCE, until

from llm.core.exceptions import LLMConnectionError, LLMException, LLMTimeoutError
from llm.providers.direct.place import place_of
from llm.providers.direct.transport import DirectTransport
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

CLOCK = SystemClock()
PEM = Path(__file__).parent / "tls" / "localhost.pem"
EXPIRED = PEM.with_name("expired.pem")  # since 2020
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment without proxies and authorities."""
    named = [name for name in os.environ if name.lower().endswith("_proxy")]
    for name in [*named, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"]:
        monkeypatch.delenv(name, raising=False)
    place_of.cache_clear()
    yield monkeypatch
    place_of.cache_clear()


class Secure:
    """A server with TLS that answers each request."""

    def __init__(self) -> None:
        self.port = 0
        self.protocols: list[str | None] = []
        self.sent: list[bytes] = []
        self.ended = 0
        self.until_end = False
        self.polite = True

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        secured: ssl.SSLObject = writer.get_extra_info("ssl_object")
        self.protocols.append(secured.selected_alpn_protocol())
        try:
            while True:
                self.sent.append(await reader.readuntil(b"{}"))
                if self.until_end:
                    writer.write(b"HTTP/1.1 200 OK\r\n\r\n{")
                    await writer.drain()
                    break
                writer.write(ANSWER)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended += 1
            if self.until_end and self.polite:
                writer.close()
            else:
                writer.transport.abort()  # without TLS's own goodbye


@pytest.fixture
async def secure() -> AsyncIterator[Secure]:
    served = Secure()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = await asyncio.start_server(served.handle, "127.0.0.1", 0, ssl=context)
    served.port = server.sockets[0].getsockname()[1]
    yield served
    server.close()
    await until(lambda: served.ended == len(served.protocols))


class Proxy:
    """A proxy that opens tunnels to one port, whatever host is asked for."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.port = 0
        self.heads: list[bytes] = []
        self.answer = b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n"
        self.now = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.now += 1
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            if b" 200 " in self.answer and self.to:
                beyond = await asyncio.open_connection("127.0.0.1", self.to)
                async with asyncio.TaskGroup() as group:
                    group.create_task(pump(reader, beyond[1]))
                    group.create_task(pump(beyond[0], writer))
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.now -= 1
            writer.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    writer.transport.abort()


@asynccontextmanager
async def proxied(to: int) -> AsyncGenerator[Proxy]:
    proxy = Proxy(to)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    yield proxy
    server.close()
    await until(lambda: not proxy.now)


@asynccontextmanager
async def opened(connect_timeout: float = 3 * PATIENCE) -> AsyncGenerator[DirectTransport]:
    transport = DirectTransport(connect_timeout=connect_timeout)
    try:
        yield transport
    finally:
        await transport.close()


async def ask(transport: DirectTransport, url: str) -> bytes:
    reply = await transport.request("POST", url, headers={}, body=b"{}")
    return await reply.read()


async def fails(transport: DirectTransport, url: str) -> LLMException:
    with pytest.raises(LLMException) as caught:
        await ask(transport, url)
    assert caught.value.__cause__ is caught.value.__context__ is None
    return caught.value


# --- TLS


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
async def test_the_authority_that_the_environment_names_is_trusted(
    secure: Secure, environment: pytest.MonkeyPatch, variable: str
) -> None:
    environment.setenv(variable, str(PEM))
    async with opened() as transport:
        for _ in range(3):
            assert await ask(transport, f"https://localhost:{secure.port}/v1") == b"{}"
    assert secure.protocols == ["http/1.1"]  # one connection, and no HTTP/2


async def test_an_authority_that_nobody_named_is_not_trusted_and_nothing_is_sent(secure: Secure) -> None:
    async with opened() as transport:
        error = await fails(transport, f"https://localhost:{secure.port}/v1")
    assert isinstance(error, LLMConnectionError)
    assert not error.sent
    assert not error.retryable
    assert "SSL_CERT_FILE" in str(error)
    assert not secure.sent


async def test_a_certificate_for_another_name_is_not_trusted(secure: Secure, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REQUESTS_CA_BUNDLE", str(PEM))
    async with opened() as transport, proxied(secure.port) as proxy:
        environment.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        error = await fails(transport, "https://somebody-else.test/")
    assert "mismatch" in str(error)
    assert "check base_url" in str(error)
    assert "SSL_CERT_FILE" not in str(error)
    assert (error.retryable, secure.sent) == (False, [])


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("named", ["/no/such/file.pem", __file__])
async def test_an_authority_that_cannot_be_read_is_told(
    secure: Secure, environment: pytest.MonkeyPatch, variable: str, named: str
) -> None:
    environment.setenv(variable, named)
    async with opened() as transport:
        error = await fails(transport, f"https://localhost:{secure.port}/v1")
    assert isinstance(error, LLMConnectionError)
    assert (error.sent, error.retryable) == (False, False)
    assert named in str(error)
    assert f"in {variable}" in str(error)


async def test_a_server_that_speaks_no_tls_is_told(environment: pytest.MonkeyPatch) -> None:
    del environment
    async with opened(connect_timeout=2.0) as transport, proxied(0) as plain:  # which both may wait for the other
        plain.answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        error = await fails(transport, f"https://127.0.0.1:{plain.port}/")
        assert isinstance(error, (LLMConnectionError, LLMTimeoutError))


async def test_a_body_of_no_stated_length_is_whole_only_with_tlss_word_of_its_end(
    secure: Secure, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("REQUESTS_CA_BUNDLE", str(PEM))
    secure.until_end = True
    async with opened() as transport:
        assert await ask(transport, f"https://localhost:{secure.port}/v1") == b"{"
        secure.polite = False
        error = await fails(transport, f"https://localhost:{secure.port}/v1")
    assert isinstance(error, LLMConnectionError)
    assert error.sent


async def test_a_handshake_that_does_not_come_times_out_in_its_phase() -> None:
    async with opened(connect_timeout=0.2) as transport:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            started = CLOCK.now()
            error = await fails(transport, f"https://127.0.0.1:{silent.getsockname()[1]}/")
    assert isinstance(error, LLMTimeoutError)
    assert (error.phase, error.sent) == ("connect", False)
    assert CLOCK.now() - started < PATIENCE


@asynccontextmanager
async def speaking_tls(certificate: Path) -> AsyncGenerator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    served = Secure()
    server = await asyncio.start_server(served.handle, "127.0.0.1", 0, ssl=context)
    port: int = server.sockets[0].getsockname()[1]
    yield port
    server.close()


async def test_a_folder_of_authorities_that_the_environment_names_is_trusted(
    secure: Secure, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ce275665.0").write_bytes(PEM.read_bytes())  # as `openssl rehash` names it, by its subject
    environment.setenv("SSL_CERT_DIR", str(tmp_path))
    async with opened() as transport:
        assert await ask(transport, f"https://localhost:{secure.port}/v1") == b"{}"


async def test_a_certificate_that_has_expired_is_not_trusted_and_no_authority_is_asked_for(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("SSL_CERT_FILE", str(EXPIRED))
    async with opened() as transport, speaking_tls(EXPIRED) as port:
        error = await fails(transport, f"https://localhost:{port}/v1")
    assert isinstance(error, LLMConnectionError)
    assert (error.sent, error.retryable) == (False, False)
    assert "has expired" in str(error)
    assert "this machine's clock" in str(error)
    assert "SSL_CERT_FILE" not in str(error)


async def test_tls_to_a_plain_port_and_the_other_way_round_are_told(
    secure: Secure, environment: pytest.MonkeyPatch
) -> None:
    del environment

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with opened() as transport:
        tls_to_plain = await fails(transport, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        plain_to_tls = await fails(transport, f"http://127.0.0.1:{secure.port}/")
    server.close()
    assert isinstance(tls_to_plain, LLMConnectionError)
    assert isinstance(plain_to_tls, LLMConnectionError)
    assert (tls_to_plain.sent, plain_to_tls.sent) == (False, True)
    assert "http:// or https://" in str(tls_to_plain)


# --- proxies


async def test_tls_goes_through_a_tunnel_of_the_proxy(secure: Secure, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REQUESTS_CA_BUNDLE", str(PEM))
    async with opened() as transport, proxied(secure.port) as proxy:
        environment.setenv("https_proxy", f"http://ann:pass@127.0.0.1:{proxy.port}")
        for _ in range(3):
            assert await ask(transport, "https://vendor.test/v1") == b"{}"
        assert proxy.heads == [
            (
                b"CONNECT vendor.test:443 HTTP/1.1\r\nhost: vendor.test:443\r\n"
                b"proxy-authorization: Basic YW5uOnBhc3M=\r\n\r\n"
            )
        ]
        assert not any(b"proxy-authorization" in sent for sent in secure.sent)
        assert secure.protocols == ["http/1.1"]
        await transport.close()


@pytest.mark.parametrize(
    ("answer", "said", "retryable"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 2\r\n\r\nno", "answers 407", False),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "answers 502", True),
        (b"HTTP/1.1 200 OK\r\n\r\nearly", "no answer that makes sense", True),
        (b"garbage\r\n\r\n", "no answer that makes sense", True),
        (b"x" * 20_000, "no answer that makes sense", True),
    ],
)
async def test_a_proxy_that_refuses_is_told_without_its_password(
    environment: pytest.MonkeyPatch, answer: bytes, said: str, retryable: bool
) -> None:
    async with opened() as transport, proxied(0) as proxy:
        proxy.answer = answer
        environment.setenv("https_proxy", f"http://ann:proxy-pass@127.0.0.1:{proxy.port}")
        error = await fails(transport, "https://vendor.test/v1")
    assert isinstance(error, LLMConnectionError)
    assert not error.sent
    assert error.retryable is retryable
    assert said in str(error)
    assert "proxy-pass" not in str(error)


async def test_a_proxy_that_is_not_trusted_is_named_as_the_one_on_the_way(
    secure: Secure, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("https_proxy", f"https://ann:proxy-pass@localhost:{secure.port}")
    async with opened() as transport:
        error = await fails(transport, "https://vendor.test/v1")
    assert str(error).startswith("cannot trust vendor.test through the proxy localhost: self-signed certificate;")
    assert "proxy-pass" not in str(error)


class LosesTLS(asyncio.SelectorEventLoop):
    """A loop in which a connection is lost in the turn that ends its handshake."""

    async def start_tls(self, transport: asyncio.WriteTransport, *_: object, **__: object) -> None:  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride] # as it is told of then
        transport.abort()


def test_a_tunnel_that_is_lost_as_its_handshake_ends_is_told(environment: pytest.MonkeyPatch) -> None:
    async def lost() -> LLMException:
        async with opened() as transport, proxied(0) as proxy:
            environment.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
            return await fails(transport, "https://vendor.test/v1")

    with asyncio.Runner(loop_factory=LosesTLS) as runner:
        error = runner.run(lost())
    assert isinstance(error, LLMConnectionError)
    assert not error.sent
    assert "cannot connect to vendor.test through the proxy 127.0.0.1" in str(error)


async def test_a_proxy_that_says_nothing_times_out_in_the_connects_phase(environment: pytest.MonkeyPatch) -> None:
    async with opened(connect_timeout=0.2) as transport:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            environment.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
            error = await fails(transport, "https://vendor.test/v1")
    assert isinstance(error, LLMTimeoutError)
    assert error.phase == "connect"


async def test_a_proxy_that_hangs_up_is_told(environment: pytest.MonkeyPatch) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    environment.setenv("https_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with opened() as transport:
        error = await fails(transport, "https://vendor.test/v1")
    assert isinstance(error, LLMConnectionError)
    assert not error.sent
    server.close()
    await server.wait_closed()


# --- names


async def test_another_address_is_tried_where_the_first_refuses(environment: pytest.MonkeyPatch) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(ANSWER)
        await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    def addresses(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.9", "127.0.0.1")]

    environment.setattr(socket, "getaddrinfo", addresses)
    async with opened() as transport:
        assert await ask(transport, f"http://vendor.test:{port}/") == b"{}"
    server.close()
    await server.wait_closed()


async def test_another_address_is_tried_where_the_first_says_nothing(environment: pytest.MonkeyPatch) -> None:
    async with proxied(0) as there:
        there.answer = ANSWER
        with full_at("127.0.0.9", there.port):

            def addresses(*_: object, **__: object) -> list[object]:
                hosts = ("127.0.0.9", "127.0.0.1")
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, there.port)) for host in hosts]

            environment.setattr(socket, "getaddrinfo", addresses)
            async with opened() as transport:
                started = CLOCK.now()
                assert await ask(transport, f"http://vendor.test:{there.port}/") == b"{}"
                assert CLOCK.now() - started < PATIENCE


@contextmanager
def full_at(host: str, port: int) -> Generator[None]:
    """An address that takes no connection, and does not say so."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((host, port))
        listening.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0)
            filler.connect_ex((host, port))
        yield


async def test_the_system_watches_over_silent_connections() -> None:
    async with opened() as transport, proxied(0) as there:
        there.answer = ANSWER
        await ask(transport, f"http://127.0.0.1:{there.port}/")
        home = transport._homes[asyncio.get_running_loop()]  # pyright: ignore[reportPrivateUsage]
        [connection] = home.pool._all  # pyright: ignore[reportPrivateUsage]
        own = connection._transport  # pyright: ignore[reportPrivateUsage]
        assert own is not None
        assert own.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await transport.close()


async def test_a_name_that_is_slow_to_look_up_times_out_in_the_connects_phase(environment: pytest.MonkeyPatch) -> None:
    slow = asyncio.Event()
    loop = asyncio.get_running_loop()

    def never(*_: object, **__: object) -> list[object]:
        asyncio.run_coroutine_threadsafe(slow.wait(), loop).result()
        return []

    environment.setattr(socket, "getaddrinfo", never)
    async with opened(connect_timeout=0.1) as transport:
        error = await fails(transport, "http://vendor.test/")
        slow.set()
    assert isinstance(error, LLMTimeoutError)
    await asyncio.to_thread(int)
