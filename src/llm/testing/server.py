"""A `MockUpstream` on a real socket."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from .exchange import ConnectionBrokenError, Exchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Arrive = Callable[[str, str, Mapping[str, str], bytes], Awaitable[Exchange]]


_MOST_BYTES: Final = 300 * 1024 * 1024
"""Of a request: more than a batch may have."""


class MockServer:
    """An HTTP server on 127.0.0.1, at a port that the system chooses, in the running loop."""

    def __init__(self, arrive: Arrive) -> None:
        """Answer what `arrive` makes of a request."""
        self._arrive = arrive
        self._runner: web.ServerRunner | None = None

    async def start(self) -> int:
        """Listen, and return the port."""
        # A client that goes away cancels its handler, which is how the mock sees that it left.
        server = web.Server(self._handle, request_factory=_request, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.0)
        await self._runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(self._runner, listening).start()
        port: int = listening.getsockname()[1]
        return port

    async def stop(self) -> None:
        """Close all connections and stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        target = f"{request.path}?{request.query_string}" if request.query_string else request.path
        exchange = await self._arrive(request.method, target, dict(request.headers), body)
        try:
            return await _play(exchange, request)
        except ConnectionBrokenError as broken:
            _break(request, reset=broken.reset)
            raise asyncio.CancelledError from None  # there is nobody to answer
        except ConnectionError:
            raise asyncio.CancelledError from None
        finally:
            exchange.leave()


def _request(*parts: Any) -> web.BaseRequest:  # noqa: ANN401 - the server's own
    message, payload, protocol, writer, task = parts
    return web.BaseRequest(
        message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=_MOST_BYTES
    )


async def _play(exchange: Exchange, request: web.BaseRequest) -> web.StreamResponse:
    play = await exchange.head()
    response = web.StreamResponse(status=play.status, headers=play.headers)
    if play.length is not None:
        response.content_length = play.length
    await response.prepare(request)
    while data := await exchange.piece():
        await response.write(data)
    await response.write_eof()
    return response


def _break(request: web.BaseRequest, *, reset: bool) -> None:
    transport = request.transport
    if transport is None:
        return
    if not reset:
        transport.close()
        return
    connection = transport.get_extra_info("socket")
    # Closing a socket that lingers for zero seconds sends a reset in place of an orderly end.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
