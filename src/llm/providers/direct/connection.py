"""One connection: requests go out, what comes goes to the answer that awaits it."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Final, cast

from .fields import seconds_kept
from .tls import is_orderly_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from .incoming import Incoming
    from .place import Origin

KEEP: Final = 30.0
"""Seconds that an idle connection is kept: less than the 60 after which proxies in between commonly drop it."""

_JOINED: Final = 64 * 1024
"""Bytes of a body that leave in one write with the head, and of a piece of a larger one."""


class Connection(asyncio.BufferedProtocol):
    """A connection to an origin, with one exchange at a time."""

    __slots__ = (
        "_buffer",
        "_free",
        "_full",
        "_lost",
        "_paused",
        "_poll",
        "_reply",
        "_rest",
        "_stopped",
        "_transport",
        "idle_until",
        "origin",
    )

    def __init__(
        self,
        origin: Origin,
        buffer: memoryview,
        free: Callable[[Connection, float], None],
        lost: Callable[[Connection], None],
    ) -> None:
        """Tell `free` when it can serve again, and for how many seconds, and `lost` when it never can.

        What comes is read into `buffer`, which all connections of an event loop share: it is taken out at once.
        """
        self.origin: Origin = origin
        self.idle_until: float = 0.0
        self._buffer = buffer
        self._free = free
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._reply: Incoming | None = None
        self._rest: memoryview | None = None  # of the body, still to be sent
        self._full = False  # what was written has not left yet
        self._stopped = False
        self._paused = False

    @property
    def host(self) -> str:
        """Who is at its other end."""
        return self.origin.host

    def send(self, head: bytes, body: bytes | None, reply: Incoming) -> bool:
        """Send a request and return whether any of it may have left; if none has, the connection is of no more use."""
        transport = self._transport
        if transport is None:
            return False
        self._reply = reply
        self._stopped = False
        if body is None or len(body) <= _JOINED:
            transport.write(head + body if body else head)
        else:
            transport.write(head)
        if transport.is_closing():  # the first write failed at once
            self.abort()
            return False
        if body is not None and len(body) > _JOINED:
            self._rest = memoryview(body)
            self._send_on()
        return True

    def is_silent(self) -> bool:
        """Return whether an idle connection can serve: open, and nothing has come, its end included."""
        # The loop would tell of an end that came before its last look at the sockets; the system knows of later ones.
        transport, poll = self._transport, self._poll
        return transport is not None and poll is not None and not transport.is_closing() and not poll.poll(0)

    def abort(self) -> None:
        """Cut it now; an answer that is not whole is lost."""
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.lose("it was closed on this side")
        if self._transport is not None:
            self._transport.abort()

    def forget(self) -> None:
        """Let go of the socket as it is, for it is another process's too."""
        self._transport = self._poll = self._reply = None

    # --- what the answer asks for

    def release(self, *, reusable: bool, keep_alive: bytes | None) -> None:
        """End the exchange; keep the connection for another where both sides can."""
        self._reply = None
        transport = self._transport
        kept = min(KEEP, KEEP if keep_alive is None else seconds_kept(keep_alive)) if reusable else 0.0
        if transport is None or kept <= 0.0 or self._rest is not None or transport.get_write_buffer_size():
            self.abort()
            return
        self.resume()
        self._free(self, kept)

    def pause(self) -> None:
        """Read no more until `resume`."""
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on, where that was paused."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def stop_sending(self) -> None:
        """Send no more of the request; what is left of it tells that the connection cannot serve again."""
        self._stopped = True

    # --- what the event loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to put what comes."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what came; nothing may come that nobody asked for."""
        if self._reply is None:
            self.abort()
        else:
            self._reply.feed(self._buffer[:nbytes])

    def eof_received(self) -> None:
        """End: whoever has sent all will not answer what is still on its way to him."""
        reply, self._reply = self._reply, None
        if reply is not None:
            if is_orderly_end(self._transport):
                reply.eof()
            else:
                reply.lose("it ended without TLS's word of its end")
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and say why."""
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.lose("it ended" if exc is None else words(exc))
        self._transport = self._poll = self._rest = None
        self._lost(self)

    def pause_writing(self) -> None:
        """Wait until what was written has left."""
        self._full = True

    def resume_writing(self) -> None:
        """Send on."""
        self._full = False
        self._send_on()

    def _send_on(self) -> None:
        while self._rest is not None and self._transport is not None and not (self._full or self._stopped):
            piece, rest = self._rest[:_JOINED], self._rest[_JOINED:]
            self._rest = rest if len(rest) else None
            self._transport.write(piece)


def words(error: Exception) -> str:
    """Say what an error is, without what it holds."""
    reason = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}, {reason}" if reason else type(error).__name__
