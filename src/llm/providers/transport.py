"""Bytes over HTTP by aiohttp: a warm pool of connections, no cookies, no redirects, errors of our own.

No exception that leaves here has a frame of aiohttp in its traceback, nor as its cause: those frames hold the headers,
and so the key. What aiohttp says is kept as words.
"""

from __future__ import annotations

import base64
import importlib
import os
import weakref
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import LLMConnectionError, LLMServerError, LLMTimeoutError

from .frames import bare

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Mapping

    from aiohttp import ClientResponse, ClientSession
    from yarl import URL

    from llm.core.protocols import Reply

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""The most that a whole answer may take, unpacked: twice the largest request that a vendor takes; what is larger is no
answer, and a packed one of a few bytes must not fill the memory."""

_KEEPALIVE: Final = 30.0
"""Seconds that an idle connection is kept: less than the 60 after which proxies in between commonly drop it."""


class AiohttpTransport:
    """One pool of connections, opened with the first request."""

    def __init__(
        self,
        *,
        connect_timeout: float = 5.0,
        max_connections: int = 0,
        max_body_bytes: int = MAX_BODY_BYTES,
        trust_env: bool = True,
    ) -> None:
        """Set the bounds.

        Args:
            connect_timeout: Seconds until a connection is there, name look-up and TLS included.
            max_connections: Most connections at once; 0 for no limit, as whoever leases keys limits them already.
            max_body_bytes: Most bytes of a whole answer, unpacked.
            trust_env: Use the proxies that the environment names.
        """
        self._connect_timeout = connect_timeout
        self._max_connections = max_connections
        self._max_body_bytes = max_body_bytes
        self._trust_env = trust_env
        self._session: ClientSession | None = None
        self._hook: AsyncGenerator[None, None] | None = None
        self._replies: set[_AiohttpReply] = set()
        self._closed = False

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """Send once and return when the answer's head is there.

        Raises:
            LLMConnectionError: No answer; `.sent` tells whether the request may have arrived.
            LLMTimeoutError: No connection within the connect time.
        """
        session = self._session or await self._open()
        target = target_of(url, trust_env=self._trust_env)
        try:
            response = await session.request(
                method,
                target.url,
                headers=headers,
                data=body,
                allow_redirects=False,
                proxy=target.proxy,
                proxy_headers=target.proxy_headers,
            )
            reply = _AiohttpReply(response, self._max_body_bytes, self._replies)
        except BaseException as error:  # noqa: BLE001 - raised below, without the frames that hold the key
            failure = self._failure(error, target)
        else:
            self._replies.add(reply)
            return reply
        raise failure

    def warm(self) -> None:
        """Load aiohttp, which the first request would otherwise wait for; may run in a thread."""
        importlib.import_module("aiohttp")

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        self._session = None
        hook, self._hook = self._hook, None
        if hook is not None:
            await hook.aclose()

    async def _open(self) -> ClientSession:
        if self._closed:
            raise LLMConnectionError("the transport is closed already; open a new manager", sent=False, retryable=False)
        from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

        self._session = ClientSession(
            connector=TCPConnector(limit=self._max_connections, keepalive_timeout=_KEEPALIVE),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None, connect=self._connect_timeout),
            headers={"user-agent": "llm-manifold"},
        )
        self._hook = _closed_with_its_loop(self._session, self._replies)
        await anext(self._hook)  # never waits
        _sessions.add(self._session)
        weakref.finalize(self, _let_go, self._session)
        return self._session

    def _failure(self, error: BaseException, target: Target) -> BaseException:
        from aiohttp import ClientConnectorError, ClientHttpProxyError, ConnectionTimeoutError

        if isinstance(error, ConnectionTimeoutError):
            return LLMTimeoutError(
                f"no connection to {target.host} within {self._connect_timeout:g} seconds; check base_url and the "
                "network, or raise timeouts.connect",
                phase="connect",
                sent=False,
                retryable=True,
            )
        if isinstance(error, (ClientConnectorError, ClientHttpProxyError)):
            return LLMConnectionError(
                f"cannot connect to {target.host}: {_words(error)}; check base_url and the network", sent=False
            )
        if isinstance(error, ValueError):
            return LLMConnectionError(
                f"cannot ask {target.host}: {type(error).__name__}; check base_url and the key for stray characters",
                sent=False,
                retryable=False,
            )
        return _replaced(error, f"the connection to {target.host} broke before an answer came")


_sessions: weakref.WeakSet[ClientSession] = weakref.WeakSet()


async def _closed_with_its_loop(session: ClientSession, replies: set[_AiohttpReply]) -> AsyncGenerator[None, None]:
    """Wait for who closes it: the transport, or `asyncio.run` as it ends, which closes generators that are open."""
    try:
        yield
    finally:
        for reply in tuple(replies):
            reply.close()
        await session.close()


def _let_go(session: ClientSession) -> None:
    """Close without a word what nobody closed, where its loop runs no more."""
    connector = session.connector
    if connector is None:
        return
    session.detach()
    closing = connector.close().__await__()
    with suppress(StopIteration):
        next(closing)
    closing.close()


def _after_fork() -> None:
    # A child that closes what it inherits takes the parent's sockets out of the parent's selector.
    for session in list(_sessions):
        if session.connector is not None:
            session.connector._closed = True  # pyright: ignore[reportPrivateUsage]  # there is no public way
        session.detach()


os.register_at_fork(after_in_child=_after_fork)


class _AiohttpReply:
    __slots__ = ("_closed", "_content", "_lost", "_max_bytes", "_open", "_response", "_taken", "headers", "status")

    def __init__(self, response: ClientResponse, max_bytes: int, among: set[_AiohttpReply]) -> None:
        self._open = among
        self._response = response
        self._content = response.content
        self._max_bytes = max_bytes
        self._taken = 0
        self._closed = False
        self._lost: asyncio.Future[None] | None = None
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        pieces: list[bytes] = []
        while data := await self.chunk():
            pieces.append(data)
            if self._taken > self._max_bytes:
                self.close()
                raise LLMServerError(
                    f"the answer is larger than {self._max_bytes} bytes, which no answer should be, and was not read; "
                    "check base_url"
                )
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def chunk(self) -> bytes:
        if self._closed:
            raise LLMConnectionError("the answer was closed before its end", sent=True)
        if self._lost is None and not self.waiting() and not self._content.is_eof():
            self._watch()
        try:
            data = await self._content.readany()
        except BaseException as error:  # noqa: BLE001 - raised below, without the frames that hold the key
            failure = _replaced(error, "the connection broke in the middle of the answer")
        else:
            self._taken += len(data)
            return data
        if self.waiting() and isinstance(failure, LLMConnectionError):
            # aiohttp forgets what came before a break; the caller gets it first, and the break with the next read.
            data = self._content._read_nowait(-1)  # pyright: ignore[reportPrivateUsage]  # there is no public way
            self._taken += len(data)
            return data
        self.close()
        raise failure

    def waiting(self) -> bool:
        return not self._closed and self._content.total_bytes > self._taken

    def close(self) -> None:
        # At its end the body has given its connection back already; before, the connection is cut.
        self._closed = True
        self._open.discard(self)
        if self._lost is not None:
            self._lost.remove_done_callback(self._on_lost)
        self._response.close()

    def _watch(self) -> None:
        # aiohttp leaves a reader waiting for ever where the framing of a body breaks in its middle.
        connection = self._response.connection
        protocol = None if connection is None else connection.protocol
        self._lost = None if protocol is None else protocol.closed
        if self._lost is not None:
            self._lost.remove_done_callback(_heard)
            self._lost.add_done_callback(_heard)
            self._lost.add_done_callback(self._on_lost)

    def _on_lost(self, _: asyncio.Future[None]) -> None:
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(ConnectionResetError("the connection was lost"))


def _heard(lost: asyncio.Future[None]) -> None:
    lost.exception()  # or asyncio complains that nobody asked for it


class Target:
    """Where a request goes, and through which proxy."""

    # No value type: its repr would show a proxy's password.
    __slots__ = ("host", "proxy", "proxy_headers", "url")

    def __init__(self, url: URL, proxy: URL | None = None, proxy_headers: Mapping[str, str] | None = None) -> None:
        """Keep the address, the proxy without its credentials, and the header that has them."""
        self.url: URL = url
        self.host: str = url.host or ""
        self.proxy: URL | None = proxy
        self.proxy_headers: Mapping[str, str] | None = proxy_headers


@lru_cache(maxsize=256)
def target_of(url: str, *, trust_env: bool) -> Target:
    """Parse an address once; the proxy too, for looking through the environment costs more than the request."""
    import yarl

    parsed = yarl.URL(url)
    proxy = _proxy_for(parsed) if trust_env else None
    if proxy is None:
        return Target(parsed)
    address = yarl.URL(proxy)
    return Target(parsed, address.with_user(None), _proxy_headers(address))


def _proxy_headers(proxy: URL) -> dict[str, str] | None:
    if not proxy.user:
        return None
    credentials = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode("ascii")
    return {"proxy-authorization": f"Basic {credentials}"}


def _proxy_for(url: URL) -> str | None:
    from urllib.request import getproxies, proxy_bypass

    return None if proxy_bypass(url.host or "") else getproxies().get(url.scheme)


def _replaced(error: BaseException, what: str) -> BaseException:
    """Return what to raise in place of an error that went through aiohttp's frames."""
    # aiohttp raises one and the same object for all that it closes, and each raise would add frames to it.
    bare(error)
    if not isinstance(error, Exception):
        return error  # a cancellation must go on as the one that it is
    return LLMConnectionError(f"{what}: {_words(error)}; it can be sent again", sent=True)


def _words(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}, {reason}" if reason else type(error).__name__
