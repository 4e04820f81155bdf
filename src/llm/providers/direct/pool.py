"""Connections of one event loop, warm for the next request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import LLMConnectionError

from .connection import KEEP, Connection

if TYPE_CHECKING:
    from llm.utils.clock import Clock, Timer

    from .place import Origin

_BUFFER_BYTES: Final = 256 * 1024


class Pool:
    """Idle connections by origin; the one that was used last serves first, so that those not needed grow old."""

    def __init__(self, clock: Clock) -> None:
        """Start empty."""
        self._clock = clock
        self._idle: dict[Origin, dict[Connection, None]] = {}
        self._all: set[Connection] = set()
        # Memory for what comes is asked of the system once, not with each read, which costs more than the reading.
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._timer: Timer | None = None
        self._closed = False

    def take(self, origin: Origin) -> Connection | None:
        """Return a connection that can serve; None where there is none."""
        idle = self._idle.get(origin)
        if not idle:
            return None
        now = self._clock.now()
        while idle:
            connection, _ = idle.popitem()
            if connection.idle_until > now and connection.is_silent():
                return connection
            connection.abort()
        return None

    def make(self, origin: Origin) -> Connection:
        """Return a new one, which the pool closes when it closes itself."""
        connection = Connection(origin, self._buffer, self._free, self._lost)
        self._all.add(connection)
        return connection

    def drop(self, connection: Connection) -> None:
        """Cut a connection that came to nothing."""
        self._all.discard(connection)
        connection.abort()

    def check(self) -> None:
        """Refuse where it was closed.

        Raises:
            LLMConnectionError: It was.
        """
        if self._closed:
            raise LLMConnectionError("the transport is closed already; open a new manager", sent=False, retryable=False)

    async def close(self) -> None:
        """Cut all connections."""
        self.abort()
        # The loop lets go of a socket in its next turn.
        turn = asyncio.Event()
        asyncio.get_running_loop().call_soon(turn.set)
        await turn.wait()

    def abort(self) -> None:
        """Cut all connections; the loop lets go of their sockets in its next turn."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in tuple(self._all):
            connection.abort()

    def forget(self) -> None:
        """Let go of all connections as they are: they are another process's."""
        self._closed = True
        for connection in self._all:
            connection.forget()
        self._idle.clear()
        self._all.clear()

    def _free(self, connection: Connection, seconds: float) -> None:
        if self._closed:
            connection.abort()
            return
        connection.idle_until = self._clock.now() + seconds
        self._idle.setdefault(connection.origin, {})[connection] = None
        if self._timer is None:
            self._timer = self._clock.call_later(KEEP, self._sweep)

    def _lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle is not None:
            idle.pop(connection, None)

    def _sweep(self) -> None:
        now = self._clock.now()
        for origin, idle in tuple(self._idle.items()):
            for connection in [each for each in idle if each.idle_until <= now]:
                del idle[connection]
                connection.abort()
            if not idle:
                del self._idle[origin]
        self._timer = self._clock.call_later(KEEP, self._sweep) if self._idle else None
