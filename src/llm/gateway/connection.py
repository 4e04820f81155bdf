"""A connection: uvicorn's, with bounds on all that a client may do, and an eye on whether it is still there.

No request has a timer of its own: a connection knows when it is overdue, and the server looks at all of them once a
second.
"""

from __future__ import annotations

import math
import socket
from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from .refusal import Refusal
from .state import State

if TYPE_CHECKING:
    import asyncio

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from .cycle import Cycle

_FULL: Final = Refusal(503, "this gateway has as many connections as it may have; try again in a moment")
_LATE_HEAD: Final = Refusal(408, "the head of the request did not come in time")
_LATE_BODY: Final = Refusal(408, "the body of the request did not come in time")


class Phase(Enum):
    """Where a connection stands."""

    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    IDLE = auto()
    REFUSED = auto()
    """Told so once what was asked before is answered; nothing more is read."""
    CLOSING = auto()


class Connection(HttpToolsProtocol):
    """A client's connection: its phases, its answers, its end.

    Attributes:
        state: What it shares with all others.
        phase: Where it stands.
        due: Monotonic seconds at which that takes too long.
    """

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
        self.phase: Phase = Phase.HEAD
        self.due: float = math.inf
        self._now = server_state.clock.now
        self._stalled = 0.0  # since when the client takes nothing; 0 while it does
        self._newest: Cycle | None = None  # of what came
        self._answering: Cycle | None = None
        self._waiting: deque[Cycle] = deque()
        self._refusal = _FULL

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin to wait for a head; where there are too many connections, say so instead."""
        state = self.state
        state.watched.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        _send_at_once(transport)
        self.server, self.client = get_local_addr(transport), get_remote_addr(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        if len(state.watched) > 2 * state.guards.max_connections:
            transport.abort()
        elif len(state.watched) > state.guards.max_connections and not self._make_room():
            self._refuse(_FULL)
        else:
            self.due = self._now() + state.guards.header_timeout

    def _make_room(self) -> bool:
        """End the connection that would have been the next to end as idle; return whether there was one."""
        idle = [each for each in self.state.watched if isinstance(each, Connection) and each.phase is Phase.IDLE]
        if idle:
            min(idle, key=lambda each: each.due).close()
        return bool(idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is being answered: nobody is there who would read it."""
        self.state.watched.discard(self)
        self.phase = Phase.CLOSING
        self.due = math.inf
        self._stalled = 0.0
        self._waiting.clear()
        if self._answering is not None:
            self._leave(self._answering)
        self._answering = self._newest = None  # which know this connection in turn, as the scope does
        self.scope = None  # type: ignore[assignment] # as uvicorn has it before a request
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        self.parser = None  # type: ignore[assignment] # as uvicorn has it; the two know each other

    def _leave(self, cycle: Cycle) -> None:
        if not cycle.response_complete and cycle.task is not None:
            cycle.disconnected = True
            cycle.tell()
            self.state.cancel(cycle.task)

    def sweep(self, now: float) -> None:
        """End it where it waits for too long."""
        if self._stalled and now - self._stalled >= self.state.guards.stall:
            self.abort()
        elif now >= self.due:
            self._overdue(now)

    def _overdue(self, now: float) -> None:
        match self.phase:
            case Phase.HEAD:
                self._refuse(_LATE_HEAD)
            case Phase.BODY if self.flow.read_paused:  # it is we who let it wait
                self.due = now + self.state.guards.body_timeout
            case Phase.BODY:
                self._refuse(_LATE_BODY)
            case Phase.IDLE:
                self.close()
            case _:
                self.abort()

    def last(self) -> None:
        """Have it end once what it answers now is answered; at once where it rests.

        Who keeps connections opens another then, to somebody who takes calls, and needs no answer that refuses one.
        """
        if self._answering is not None:
            self._answering.keep_alive = False
        elif self.phase is Phase.IDLE:
            self.close()

    def shutdown(self) -> None:
        """Do nothing: the server tells by `last`, `close` and `abort` what is to end."""

    def close(self) -> None:
        """End it once what was written is read."""
        self.phase = Phase.CLOSING
        self.due = self._now() + self.state.guards.stall
        self.transport.close()

    def abort(self) -> None:
        """End it at once."""
        self.due = math.inf
        self.transport.abort()

    def pause_writing(self) -> None:
        """Know since when the client takes nothing."""
        self._stalled = self._now()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Know that it does."""
        self._stalled = 0.0
        super().resume_writing()

    # --- answers ------------------------------------------------------------------------------------------------------

    def _answer(self, cycle: Cycle) -> None:
        self._answering = cycle
        cycle.task = self.loop.create_task(cycle.run_asgi(self.state.app))
        self.tasks.add(cycle.task)  # until it has run

    def _answered(self, cycle: Cycle) -> None:
        """Go on after an answer: with what was asked meanwhile, or by waiting."""
        self.state.total_requests += 1
        self._answering = None
        if self.transport.is_closing():
            return
        if not cycle.keep_alive:
            self.close() if self.phase is Phase.ANSWER and not self._waiting else self._linger()
        elif self._waiting:
            self._answer(self._waiting.pop())
        elif self.phase is Phase.REFUSED:
            self._tell_refusal()
        elif self.phase is Phase.ANSWER:
            self.phase = Phase.IDLE
            self.due = self._now() + self.state.guards.idle

    def _refuse(self, refusal: Refusal) -> None:
        """Read nothing more, and say why, once what was asked before is answered."""
        refused = self._newest if self.phase is Phase.BODY else None
        self.phase = Phase.REFUSED
        self.due = math.inf
        self._refusal = refusal
        if refused is not None and self._waiting:
            self._waiting.popleft()  # the last that came
        elif refused is not None and self._answering is not None:
            answering, self._answering = self._answering, None
            self._leave(answering)
            if refused.response_started:
                self.abort()
                return
        if self._answering is None:
            self._tell_refusal()

    def _tell_refusal(self) -> None:
        self.state.refused(self._refusal.status)
        self.transport.write(self._refusal.response())
        self._linger()

    def _linger(self) -> None:
        """Say goodbye, and throw away what still comes: a client that is cut while it sends does not read why."""
        guards = self.state.guards
        self.phase = Phase.CLOSING
        self.due = self._now() + (guards.stall if self.transport.get_write_buffer_size() else guards.linger)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()


def _send_at_once(transport: asyncio.Transport) -> None:
    """Have each piece of a stream leave as it is written; the loop sees to that for some kinds of sockets alone."""
    own: socket.socket | None = transport.get_extra_info("socket")
    if own is not None and own.family != socket.AF_UNIX:
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
