"""A connection: uvicorn's, with bounds on all that a client may do, and an eye on whether it is still there.

No request has a timer of its own: a connection knows when it is overdue, and the server looks at all of them once a
second.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from .cycle import Cycle
from .guards import MOST_AHEAD, MOST_DISCARDED, MOST_HEAD, MOST_HEADERS, MOST_PIPELINED, MOST_TARGET
from .refusal import Refusal
from .state import State

if TYPE_CHECKING:
    import asyncio

    from uvicorn.config import Config
    from uvicorn.server import ServerState

_NOTED: Final = frozenset({b"host", b"expect", b"content-length", b"transfer-encoding"})
_FULL: Final = Refusal(503, "this gateway has as many connections as it may have; try again in a moment")
_LATE_HEAD: Final = Refusal(408, "the head of the request did not come in time")
_LATE_BODY: Final = Refusal(408, "the body of the request did not come in time")
_NO_HTTP: Final = Refusal(400, "this is no valid HTTP request")


class Phase(Enum):
    """Where a connection stands."""

    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    IDLE = auto()
    REFUSED = auto()
    """Told so once what was asked before is answered; nothing more is read."""
    CLOSING = auto()


class _StopError(Exception):
    """A request is refused in the middle of its parsing."""


class Connection(HttpToolsProtocol):
    """A client's connection.

    Attributes:
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
        self.cycle: Cycle
        self.phase: Phase = Phase.HEAD
        self.due: float = math.inf
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self._now = server_state.clock.now
        self._stalled = 0.0  # since when the client takes nothing; 0 while it does
        self._refusal = _NO_HTTP
        self._answering: tuple[Cycle, asyncio.Task[None]] | None = None
        self._waiting: deque[Cycle] = deque()
        self._ahead = bytearray()
        self._passed = False  # whether a request ended in the data at hand
        self._head = 0  # bytes of the head that were parsed
        self._raw = 0  # bytes that came of it before
        self._body = 0
        self._unparsed = 0  # bytes of a body that the parser is not to see
        self._noted: dict[bytes, bytes] = {}
        self._hosts = 0
        self._discarded = 0

    # --- the connection -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin to wait for a head; where there are too many connections, say so instead."""
        state = self.state
        state.watched.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
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
        self._ahead.clear()
        if self._answering is not None:
            self._leave(*self._answering)
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        self.parser = None  # type: ignore[assignment] # as uvicorn has it; the two know each other

    @staticmethod
    def _leave(cycle: Cycle, task: asyncio.Task[None]) -> None:
        if not cycle.response_complete:
            cycle.disconnected = True
            cycle.tell()
            task.cancel()

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
        """Have it end once what it answers now is answered."""
        if self._answering is not None:
            self._answering[0].keep_alive = False

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

    # --- what comes ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what the client sent, as far as it is its turn."""
        if self.phase in (Phase.CLOSING, Phase.REFUSED):
            self._discarded += len(data)
            if self._discarded > MOST_DISCARDED:
                self.abort()
        elif self.phase is Phase.ANSWER:
            # It is not parsed yet, but read: who reads on hears when the client leaves.
            self._ahead += data
            if len(self._ahead) > MOST_AHEAD:
                self.flow.pause_reading()
        elif self._unparsed:
            self._take_unparsed(data)
        else:
            if self.phase is Phase.IDLE:
                self._wait_for_head()
            self._feed(data)

    def _take_unparsed(self, data: bytes) -> None:
        """Take the body of a request that wished for another protocol: the parser leaves off at its head.

        Clients of Java ask for HTTP/2 with their first request, and go on with HTTP/1.1 where they are not heard.
        """
        body, rest = data[: self._unparsed], data[self._unparsed :]
        self._unparsed -= len(body)
        self.on_body(body)
        if not self._unparsed:
            self.on_message_complete()
        if rest:
            self.data_received(rest)

    def _wait_for_head(self) -> None:
        self.phase = Phase.HEAD
        self.due = self._now() + self.state.guards.header_timeout
        self._raw = 0

    def _feed(self, data: bytes) -> None:
        self._passed = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_web_socket():
                self._upgrade()
            elif rest := data[upgrade.args[0] :]:
                self.data_received(rest)
            return
        except httptools.HttpParserError:
            self._refuse(self._refusal)
            return
        if self.phase is Phase.HEAD and not self._passed:
            self._raw += len(data)
            if self._raw > MOST_HEAD:
                self._refuse(Refusal(431, "the head of the request is too large"))

    def _stop(self, status: int, why: str) -> NoReturn:
        self._refusal = Refusal(status, why)
        raise _StopError

    def on_message_begin(self) -> None:
        """Begin a request."""
        if len(self._waiting) >= MOST_PIPELINED:
            self._stop(503, "too many requests at once on one connection; wait for an answer")
        super().on_message_begin()
        self._head = self._body = self._hosts = 0
        self._noted.clear()
        self._wait_for_head()

    def on_url(self, url: bytes) -> None:
        """Take a part of its target."""
        super().on_url(url)
        if len(self.url) > MOST_TARGET:
            self._stop(414, f"the path is longer than {MOST_TARGET} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one that follows the body counts, and is not looked at."""
        self._head += len(name) + len(value) + 4
        if self._head > MOST_HEAD:
            self._stop(431, f"the head of the request is larger than {MOST_HEAD} bytes")
        if self.phase is not Phase.HEAD:
            return
        if len(self.headers) >= MOST_HEADERS:
            self._stop(431, f"the request has more than {MOST_HEADERS} headers")
        name = name.lower()
        if name in _NOTED:
            self._noted[name] = value
            self._hosts += name == b"host"
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Have the request answered, where it may be; its body may still be on the way."""
        parser, scope = self.parser, self.scope
        version = scope["http_version"] = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        if self._hosts > 1 or (version == "1.1" and not self._hosts):
            self._stop(400, "a request names one Host")
        if version not in {"1.0", "1.1"}:
            self._stop(505, "expected HTTP/1.1 or HTTP/1.0")
        coding = self._noted.get(b"transfer-encoding")
        if coding is not None and (coding.lower() != b"chunked" or version == "1.0" or parser.should_upgrade()):
            self._stop(501, "of transfer codings this gateway knows `chunked` alone, in HTTP/1.1")
        if self._is_web_socket():
            if self._answering is not None:
                self._stop(400, "a WebSocket cannot begin before the request ahead of it is answered")
            return
        guards = self.state.guards
        length = int(self._noted.get(b"content-length", b"0"))
        if length > guards.max_body_bytes:
            self._too_large()
        self._unparsed = length if parser.should_upgrade() else 0
        self._locate()
        self.phase = Phase.BODY
        self.due = self._now() + guards.body_timeout
        self.cycle = Cycle(
            scope,
            transport=self.transport,
            flow=self.flow,
            state=self.state,
            expects=self._noted.get(b"expect", b"").lower() == b"100-continue",
            keep_alive=version == "1.1" and parser.should_keep_alive(),
            answered=self._answered,
        )
        if self._answering is None:
            self._answer(self.cycle)
        else:
            self._waiting.appendleft(self.cycle)

    def _is_web_socket(self) -> bool:
        return self.parser.should_upgrade() and self._should_upgrade()

    def _too_large(self) -> None:
        most = self.state.guards.max_body_bytes
        self._stop(413, f"the body is larger than {most} bytes (gateway.max_body_bytes); send a smaller one")

    def _locate(self) -> None:
        url = httptools.parse_url(self.url)
        raw = url.path
        path = raw.decode("ascii")
        self.scope["path"] = unquote(path) if "%" in path else path
        self.scope["raw_path"] = raw
        self.scope["query_string"] = url.query or b""

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body += len(body)
        if self._body > self.state.guards.max_body_bytes:
            self._too_large()
        self.cycle.take(body)

    def on_message_complete(self) -> None:
        """Know that the request is whole."""
        self._passed = True
        if self.phase is not Phase.BODY or self._unparsed:
            return  # a WebSocket begins, or the body is still to come
        self.phase = Phase.ANSWER
        self.due = math.inf
        self.cycle.whole()
        self.flow.resume_reading()

    # --- what goes ----------------------------------------------------------------------------------------------------

    def _answer(self, cycle: Cycle) -> None:
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._answering = (cycle, task)

    def _answered(self, cycle: Cycle) -> None:
        """Go on after an answer: with what was asked meanwhile, or by waiting."""
        self.state.total_requests += 1
        self._answering = None
        if self.transport.is_closing():
            return
        if not cycle.keep_alive:
            self._linger() if cycle.more_body or self._ahead or self.phase is Phase.REFUSED else self.close()
        elif self._waiting:
            self._answer(self._waiting.pop())
        elif self.phase is Phase.REFUSED:
            self._tell_refusal()
        elif self.phase is Phase.ANSWER:
            self._wait_for_next()

    def _wait_for_next(self) -> None:
        self.phase = Phase.IDLE
        self.due = self._now() + self.state.guards.idle
        if self._ahead:
            data = bytes(self._ahead)
            self._ahead.clear()
            self.flow.resume_reading()
            self.data_received(data)

    def _refuse(self, refusal: Refusal) -> None:
        """Read nothing more, and say why, once what was asked before is answered."""
        refused = self.cycle if self.phase is Phase.BODY else None
        self.phase = Phase.REFUSED
        self.due = math.inf
        self._refusal = refusal
        if refused is not None and self._waiting:
            self._waiting.popleft()  # the last that came
        elif refused is not None and self._answering is not None:
            answering, self._answering = self._answering, None
            self._leave(*answering)
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

    def _upgrade(self) -> None:
        self.state.watched.discard(self)
        self.handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment] # as above
