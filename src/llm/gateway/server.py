"""The server of one process: its connections watched, and an end in good order.

uvicorn listens and speaks HTTP; what it leaves open (bounds, clients that leave, an end within its time) is here.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from uvicorn import Config, Server

from llm.utils.clock import SystemClock

from .protocol import Connection
from .state import State
from .web_socket import WebSocket

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Generator

    from llm.utils.clock import Clock, Timer

    from .guards import Guards

_BACKLOG: Final = 2048
_ENDINGS: Final = 0.4
"""Seconds in which answers that were ended tell so, of the one in which the process is gone."""

_GOODBYE: Final = 0.2
"""Seconds in which what is written last is read."""

_MOMENT: Final = 0.01


class App(Protocol):
    """The application, as the server sees it."""

    draining: bool
    """Whether new calls are refused; the server says so."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI's
        """Answer a request."""

    def end_all(self) -> None:
        """End every answer that still runs: each tells its client so."""


class GatewayServer(Server):
    """Serves an application until it is told to stop."""

    def __init__(
        self,
        app: App,
        guards: Callable[[], Guards],
        *,
        clock: Clock | None = None,
        refused: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Listen to nothing yet.

        Args:
            app: The application.
            guards: Returns the bounds in force; asked once a second.
            clock: Its time.
            refused: Called with the status of each answer that the server gives by itself.
        """
        self._app = app
        self._guards = guards
        self._clock: Clock = clock or SystemClock()
        self._stopping: asyncio.Future[float] | None = None
        self._timer: Timer | None = None
        self.state: State = State(guards(), self._clock, refused)
        super().__init__(self._settings())
        self.server_state = self.state

    def _settings(self) -> Config:
        return Config(
            self._app,
            http=Connection,
            ws=WebSocket,
            ws_max_size=self.state.guards.max_body_bytes,
            ws_per_message_deflate=False,  # a stream of tokens gains little, and each connection would pay for it
            lifespan="off",
            interface="asgi3",
            loop="none",
            log_config=None,
            log_level=logging.CRITICAL,  # what there is to tell, ours tells
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
        )

    def stop(self, drain: float) -> None:
        """Begin to end: answers that run have `drain` seconds; called again, no more than those."""
        if self._stopping is None:
            self.should_exit = True
        elif not self._stopping.done():
            self._stopping.set_result(drain)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the process that this server is a part of."""
        yield

    async def main_loop(self) -> None:
        """Look at the connections now and then, until it is to stop."""
        self._stopping = asyncio.get_running_loop().create_future()
        self._sweep()
        await self._stopping

    def _sweep(self) -> None:
        self.state.guards = self._guards()
        self.state.sweep()
        self._timer = self._clock.call_later(self.state.guards.interval, self._sweep)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, let answers end, then end them; leaves no task and no connection."""
        ...
