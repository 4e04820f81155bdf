"""A way through a proxy to a server that speaks TLS: the method CONNECT."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

from llm.core.exceptions import LLMConnectionError

if TYPE_CHECKING:
    from .place import Origin, Proxy

_MAX_HEAD_BYTES: Final = 16 * 1024
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)\b")


class Tunnel(asyncio.Protocol):
    """Asks a proxy for a tunnel."""

    def __init__(self) -> None:
        """Wait for a connection to the proxy."""
        self._came = b""
        self._answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Wait for the end of the head."""
        self._came += data
        if b"\r\n\r\n" in self._came or len(self._came) > _MAX_HEAD_BYTES:
            self._answer(self._came)

    def connection_lost(self, exc: Exception | None) -> None:
        """Answer what came."""
        del exc
        self._answer(b"")

    async def open(self, origin: Origin, proxy: Proxy) -> None:
        """Return when the tunnel is there.

        Raises:
            LLMConnectionError: The proxy refuses it.
        """
        transport = self._transport
        if transport is not None:
            transport.write(_request(origin, proxy))
        head, _, rest = (await self._answered).partition(b"\r\n\r\n")
        read = _STATUS.match(head)
        status = 0 if read is None else int(read[1])
        if status == HTTPStatus.OK and not rest:  # the server behind it says nothing before we do
            return
        said = f"answers {status}" if status not in {0, HTTPStatus.OK} else "gives no answer that makes sense"
        raise LLMConnectionError(
            f"cannot connect to {origin.host}: the proxy {proxy.host}:{proxy.port} {said}; check the proxy that the "
            "environment names, and NO_PROXY",
            sent=False,
            retryable=not HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR,
        )

    def _answer(self, head: bytes) -> None:
        if not self._answered.done():
            self._answered.set_result(head)


def _request(origin: Origin, proxy: Proxy) -> bytes:
    place = origin.authority.encode("ascii")
    lines = [b"CONNECT %b HTTP/1.1" % place, b"host: %b" % place]
    if proxy.authorization:
        lines.append(b"proxy-authorization: %b" % proxy.authorization)
    return b"\r\n".join([*lines, b"", b""])
