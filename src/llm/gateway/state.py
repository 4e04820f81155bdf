"""What all connections of a server share."""

from __future__ import annotations

import logging
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, Protocol

from uvicorn.server import ServerState

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from llm.utils.clock import Clock

    from .guards import Guards

logger = logging.getLogger("llm.gateway")

_BUFFER_BYTES: Final = 256 * 1024


class App(Protocol):
    """The application, as the server sees it."""

    @property
    def draining(self) -> bool:
        """Whether new calls are refused; the server says so."""
        ...

    @draining.setter
    def draining(self, draining: bool) -> None: ...

    def __call__(self, scope: Any, receive: Any, send: Any) -> Coroutine[Any, Any, None]:  # noqa: ANN401 - ASGI's
        """Answer a request."""
        ...

    def end_all(self) -> None:
        """End every answer that still runs: each tells its client so."""


class Watched(Protocol):
    """A connection, as the server sees it."""

    def sweep(self, now: float) -> None:
        """End it where it waits for too long; `now` in monotonic seconds."""

    def last(self) -> None:
        """Have it end once what it answers now is answered; at once where it rests."""

    def close(self) -> None:
        """End it once what was written is read."""

    def abort(self) -> None:
        """End it at once."""


class State(ServerState):
    """What all connections of a server share.

    Attributes:
        app: What answers.
        guards: The bounds that are in force.
        clock: The time.
        buffer: What comes on any of them is read into this, so that no read asks for memory of its size.
        date: The line of the head that tells the second.
        draining: Whether the server ends: what is answered now is a connection's last answer.
        refused: Called with the status of each answer that the server gives by itself.
        watched: All connections.
    """

    def __init__(self, app: App, guards: Guards, clock: Clock, refused: Callable[[int], object]) -> None:
        """Start without connections."""
        super().__init__()
        self.app: App = app
        self.guards: Guards = guards
        self.clock: Clock = clock
        self.buffer: memoryview = memoryview(bytearray(_BUFFER_BYTES))
        self.date: bytes = b""
        self.draining: bool = False
        self.refused: Callable[[int], object] = refused
        self.watched: set[Watched] = set()

    def cancel(self, task: asyncio.Task[None]) -> None:
        """End the task of an answer; one that has not begun would never leave `tasks` by itself."""
        task.add_done_callback(self.tasks.discard)
        task.cancel()

    def sweep(self) -> None:
        """Look at every connection, and at what time it is."""
        self.date = f"date: {formatdate(self.clock.wall(), usegmt=True)}\r\n".encode()
        now = self.clock.now()
        for connection in tuple(self.watched):
            connection.sweep(now)


def tell_failure(error: BaseException) -> None:
    """Log that a route failed in a way that it did not foresee: what and where, and nothing of what it held."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f" at {place.tb_frame.f_globals.get('__name__')}:{place.tb_lineno}"
    logger.error("a route failed: %s%s", type(error).__name__, where)
