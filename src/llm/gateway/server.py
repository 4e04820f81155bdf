"""The server of one process: its connections watched, and an end in good order.

uvicorn listens and speaks HTTP; what it leaves open (bounds, clients that leave, an end within its time) is here.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from uvicorn import Config, Server

from llm.core.exceptions import LLMConfigurationError
from llm.utils.clock import SystemClock

from .protocol import HTTPConnection
from .state import State
from .web_socket import WebSocket

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Generator

    from llm.utils.clock import Clock, Timer

    from .guards import Guards
    from .state import App

_BACKLOG: Final = 2048
_ENDINGS: Final = 0.4
"""Seconds in which answers that were ended tell so, of the one in which the process is gone."""

_GOODBYE: Final = 0.2
"""Seconds in which what is written last is read."""

_MOMENT: Final = 0.01


class GatewayServer(Server):
    """Serves an application until it is told to stop."""

    def __init__(
        self,
        app: App,
        guards: Callable[[], Guards],
        *,
        clock: Clock | None = None,
        refused: Callable[[int], object] = lambda _: None,
        ready: Callable[[], object] = lambda: None,
    ) -> None:
        """Listen to nothing yet.

        Args:
            app: The application.
            guards: Returns the bounds in force; asked once a second.
            clock: Its time.
            refused: Called with the status of each answer that the server gives by itself.
            ready: Called once it listens.
        """
        self._guards = guards
        self._clock: Clock = clock or SystemClock()
        self._ready = ready
        self._stopping: asyncio.Future[None] | None = None
        self._drain = 0.0
        self._timer: Timer | None = None
        self.state: State = State(app, guards(), self._clock, refused)
        super().__init__(self._settings())
        self.server_state = self.state

    def _settings(self) -> Config:
        return Config(
            self.state.app,
            http=HTTPConnection,
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

    def leave(self) -> None:
        """Have each connection end with its next answer, whoever it is, and go on taking calls.

        Where a balancer sends nobody here any more, clients that keep connections so move without losing a call.
        """
        self.state.draining = True

    def stop(self, drain: float) -> None:
        """Begin to end: answers that run have `drain` seconds. Once is enough."""
        if self.should_exit:
            return
        self.should_exit = True
        self._drain = drain
        if self._stopping is not None:
            self._stopping.set_result(None)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the process that this server is a part of."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen.

        Raises:
            LLMConfigurationError: Another program came first.
        """
        try:
            await super().startup(sockets)
        except OSError as error:
            raise LLMConfigurationError(f"gateway.port: {error.strerror}; choose another port with --port") from error
        self._sweep()
        self._ready()

    async def main_loop(self) -> None:
        """Wait until it is to stop; the loop and the connections do the rest."""
        self._stopping = asyncio.get_running_loop().create_future()
        await self._stopping

    def _sweep(self) -> None:
        self.state.guards = self._guards()
        self.state.sweep()
        self._timer = self._clock.call_later(self.state.guards.interval, self._sweep)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, let answers end, then end them; leaves no task and no connection."""
        del sockets  # the servers close them
        for server in self.servers:
            server.close()
        self.state.draining = self.state.app.draining = True
        for connection in tuple(self.state.watched):
            connection.last()
        due = self._clock.now() + self._drain
        if not await self._answered(due):
            await self._end_answers()
        await self._end_connections(due)
        if self._timer is not None:
            self._timer.cancel()
        for server in self.servers:
            await server.wait_closed()

    async def _answered(self, due: float) -> bool:
        """Wait until every answer has ended; return whether they had in time."""
        while (tasks := tuple(self.state.tasks)) and (seconds := due - self._clock.now()) > 0.0:
            await asyncio.wait(tasks, timeout=seconds)
        return not tasks

    async def _end_answers(self) -> None:
        self.state.app.end_all()
        if not await self._answered(self._clock.now() + _ENDINGS):
            for task in tuple(self.state.tasks):
                self.state.cancel(task)
            await self._answered(self._clock.now() + _GOODBYE)

    async def _end_connections(self, due: float) -> None:
        for connection in tuple(self.state.watched):
            connection.close()
        due = max(due, self._clock.now() + _GOODBYE)
        while self.state.watched and self._clock.now() < due:
            await self._clock.sleep(_MOMENT)
        for connection in tuple(self.state.watched):
            connection.abort()
        while self.state.watched:
            await self._clock.sleep(0.0)
