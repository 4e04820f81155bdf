"""New connections: name, socket, tunnel, TLS, all within one time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Final

from aiohappyeyeballs import start_connection  # pyright: ignore[reportUnknownVariableType]  # an address is any tuple

from llm.core.exceptions import LLMConnectionError, LLMTimeoutError

from .connection import words
from .names import Names
from .tls import tls_context
from .tunnel import Tunnel

if TYPE_CHECKING:
    from llm.utils.clock import Clock

    from .connection import Connection
    from .place import Origin, Proxy
    from .pool import Pool

_NEXT_ADDRESS: Final = 0.25
"""Seconds until the next address is tried as well. Source: RFC 8305, section 5."""

_ALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))
"""A model may think for minutes without a byte, longer than routers in between remember a silent connection."""

_UNKNOWN_AUTHORITY: Final = "name the file of its authority in SSL_CERT_FILE or REQUESTS_CA_BUNDLE"
_OTHER_TIME: Final = "check this machine's clock; if it is right, whoever runs the server has to renew its certificate"
_OTHER_HOST: Final = "check base_url, for somebody else answers there"
_REMEDIES: Final = {9: _OTHER_TIME, 10: _OTHER_TIME, 62: _OTHER_HOST, 64: _OTHER_HOST}
"""What else to do, by OpenSSL's code. Source: https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/"""


class Dialer:
    """Makes connections for one event loop's pool."""

    def __init__(self, pool: Pool, clock: Clock, timeout: float) -> None:
        """Allow `timeout` seconds for each."""
        self._pool = pool
        self._clock = clock
        self._timeout = timeout
        self._names = Names(clock)

    async def dial(self, origin: Origin) -> Connection:
        """Return a connection that is ready for a request.

        Raises:
            LLMConnectionError: There is no way.
            LLMTimeoutError: It took too long.
        """
        try:
            async with self._clock.timeout(self._timeout):
                return await self._connect(origin)
        except TimeoutError:
            pass
        raise LLMTimeoutError(
            f"no connection to {origin.host} within {self._timeout:g} seconds; check base_url and the network, or "
            "raise timeouts.connect",
            phase="connect",
            sent=False,
            retryable=True,
        )

    async def _connect(self, origin: Origin) -> Connection:
        connection = self._pool.make(origin)
        try:
            await self._open(connection, origin)
            self._pool.check()
        except ssl.SSLCertVerificationError as error:
            failure = LLMConnectionError(
                f"cannot trust {_name(origin)}: {error.verify_message}; "
                f"{_REMEDIES.get(error.verify_code, _UNKNOWN_AUTHORITY)}",
                sent=False,
                retryable=False,
            )
        except ssl.SSLError as error:
            failure = LLMConnectionError(
                f"cannot connect to {_name(origin)}: no TLS is spoken there that we understand ({words(error)}); check "
                "base_url, its http:// or https:// too",
                sent=False,
            )
        except (OSError, RuntimeError) as error:
            failure = LLMConnectionError(
                f"cannot connect to {_name(origin)}: {words(error)}; check base_url and the network", sent=False
            )
        except BaseException:
            self._pool.drop(connection)
            raise
        else:
            return connection
        self._pool.drop(connection)
        raise failure

    async def _open(self, connection: Connection, origin: Origin) -> None:
        proxy = origin.proxy
        if proxy is not None and origin.secure:
            await self._open_through(connection, origin, proxy)
            return
        end, secure = (origin, origin.secure) if proxy is None else (proxy, proxy.secure)
        await self._join(connection, end.host, end.port, secure=secure)

    async def _open_through(self, connection: Connection, origin: Origin, proxy: Proxy) -> None:
        tunnel = Tunnel()
        transport = await self._join(tunnel, proxy.host, proxy.port, secure=proxy.secure)
        try:
            await tunnel.open(origin, proxy)
            context = await tls_context()
            loop = asyncio.get_running_loop()
            inner = await loop.start_tls(transport, connection, context, server_hostname=origin.host)
        except BaseException:
            transport.abort()
            raise
        if inner is None:
            raise ConnectionResetError
        connection.connection_made(inner)

    async def _join(self, protocol: asyncio.BaseProtocol, host: str, port: int, *, secure: bool) -> asyncio.Transport:
        context = await tls_context() if secure else None
        joined = await start_connection(
            await self._names.find(host, port),
            happy_eyeballs_delay=_NEXT_ADDRESS,
        )
        _keep_alive(joined)
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: protocol, sock=joined, ssl=context, server_hostname=host if secure else None
        )
        return transport


def _keep_alive(joined: socket.socket) -> None:
    joined.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _ALIVE:
        if hasattr(socket, name):  # not every system has each of them
            joined.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _name(origin: Origin) -> str:
    return origin.host if origin.proxy is None else f"{origin.host} through the proxy {origin.proxy.host}"
