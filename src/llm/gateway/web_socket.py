"""A WebSocket: uvicorn's, with an eye on whether its client is still there and reads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from .refusal import Refusal
from .state import State, tell_failure

if TYPE_CHECKING:
    from asyncio.transports import BaseTransport

    from uvicorn.config import Config
    from uvicorn.server import ServerState

_CLOSES = 10.0
"""Seconds that a client has to read what was written before the connection ends."""

_WENT_WELL: Final = 1000
_RESTARTS: Final = 1012
_FAILED: Final = 1011
_NO_WEB_SOCKET: Final = Refusal(400, "a WebSocket begins with a GET that has no body, and headers of ordinary length")


class WebSocket(WebSocketsSansIOProtocol):
    """A client's WebSocket."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take what uvicorn gives a protocol.

        Raises:
            TypeError: The server is none of ours.
        """
        super().__init__(config, server_state, app_state, _loop)
        if not isinstance(server_state, State):
            raise TypeError("expected a server of llm.gateway")
        self.state: State = server_state
        self._now = server_state.clock.now
        self._stalled = 0.0
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Take over the connection."""
        super().connection_made(transport)
        self.state.watched.add(self)

    def data_received(self, data: bytes) -> None:
        """Take what came, a whole head first; one that begins no WebSocket is refused, as nobody else would answer."""
        super().data_received(data)
        if not (self.handshake_initiated or self.transport.is_closing()):
            self.state.refused(_NO_WEB_SOCKET.status)
            self.transport.write(_NO_WEB_SOCKET.response())
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End its application's task: nobody is there who would read anything."""
        self.state.watched.discard(self)
        self._stalled = 0.0
        super().connection_lost(exc)
        if self._task is not None:
            self._task.cancel()

    def left(self) -> bool:
        """Return whether the client is gone."""
        return self.disconnected

    async def run_asgi(self) -> None:
        """Have the application speak, and end the connection with it."""
        self._task = asyncio.current_task()
        self.scope["llm.left"] = self.left  # type: ignore[typeddict-unknown-key] # our own
        code = _WENT_WELL
        try:
            await self.state.app(self.scope, self.receive, self.send)
        except (asyncio.CancelledError, ClientDisconnected):
            code = _RESTARTS
        except Exception as error:  # noqa: BLE001 - whatever a route did not foresee
            tell_failure(error)
            code = _FAILED
        self._task = None
        self._end(code)

    def _end(self, code: int) -> None:
        """Say goodbye, where the application did not."""
        if self.disconnected or self.transport.is_closing():
            return
        if not self.handshake_complete:
            self.send_500_response()
        elif not self.close_sent:
            self.close_sent = True
            self.conn.send_close(code)
            self.transport.write(b"".join(self.conn.data_to_send()))
        if self.close_timer is None:
            self.transport.close()

    def pause_writing(self) -> None:
        """Know since when the client takes nothing, and hear nothing from it: each ping would add a pong."""
        self._stalled = self._now()
        super().pause_writing()
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Know that it does."""
        self._stalled = 0.0
        super().resume_writing()
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def sweep(self, now: float) -> None:
        """End it where its client takes nothing for too long."""
        if not self._stalled and self.transport.is_closing():
            self._stalled = now + _CLOSES - self.state.guards.stall
        elif self._stalled and now - self._stalled >= self.state.guards.stall:
            self.abort()

    def last(self) -> None:
        """Do nothing: its application knows what still runs."""

    def close(self) -> None:
        """Say goodbye, and end it."""
        self.stop_keepalive()
        self._end(_RESTARTS)
        if self.close_timer is not None:  # it waits for the client's goodbye no longer
            self.close_timer.cancel()
            self.close_timer = None
            self.transport.close()

    def abort(self) -> None:
        """End it at once."""
        self.transport.abort()
