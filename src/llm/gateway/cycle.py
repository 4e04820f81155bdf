"""One request on a connection, and its answer."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from .guards import MOST_HELD
from .refusal import Refusal
from .state import tell_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uvicorn.protocols.http.flow_control import FlowControl

    from .state import State

_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_WITHOUT_BODY: Final = frozenset({204, 304})
_HEEDED: Final = frozenset({b"connection", b"transfer-encoding", b"content-length"})
"""Headers of which the first two are ours to say."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_ENDS: Final = Refusal(503, "this gateway is about to end; try again in a moment")
_FAILED: Final = Refusal(500, "the gateway failed; its log tells where")
_NO_ANSWER: Final = Refusal(500, "the gateway gave no answer")


class Cycle(RequestResponseCycle):
    """A request's ASGI channels.

    The head of an answer leaves with its first piece, in one packet. Of a body no more is held than the connection's
    flow control lets in before the application asks for it.

    Attributes:
        disconnected: Whether nobody is there any more to be answered.
        task: What answers; None where it has not begun.
    """

    def __init__(  # noqa: PLR0913 - what a request has
        self,
        scope: Any,  # noqa: ANN401 - ASGI's
        *,
        transport: asyncio.Transport,
        flow: FlowControl,
        state: State,
        expects: bool,
        keep_alive: bool,
        answered: Callable[[Cycle], None],
    ) -> None:
        """Take a request whose head is there.

        Args:
            scope: The ASGI scope.
            transport: Takes the answer.
            flow: Tells when it takes no more.
            state: The server's.
            expects: Whether the client waits for a 100 before it sends the body.
            keep_alive: Whether the connection may be used again.
            answered: Called after the answer's last byte was written.
        """
        self.scope = scope
        self.transport = transport
        self.flow = flow
        self.disconnected = False
        self.task: asyncio.Task[None] | None = None
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self._state = state
        self._answered = answered
        self._pieces: list[bytes] = []
        self._held = 0  # bytes of them
        self._news: asyncio.Event | None = None
        self._head = b""
        self._left = 0  # bytes of a body of stated length that are still to come
        self._known = False  # whether the answer's length is
        self._chunked = False
        self._silent = scope["method"] == "HEAD"  # whether the answer has a head alone
        self._knows_chunks = scope["http_version"] != "1.0"
        self._given = False  # whether all of the body is
        scope["llm.left"] = self.left

    def left(self) -> bool:
        """Return whether the client left before its answer was whole."""
        return self.disconnected and not self.response_complete

    def take(self, piece: bytes) -> None:
        """Add a piece of the body; where nobody asks for it, the client has to wait with what follows."""
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held > MOST_HELD:
            self.flow.pause_reading()
        self.tell()

    def whole(self) -> None:
        """Know that all of the body is there."""
        self.more_body = False
        self.tell()

    def tell(self) -> None:
        """Have whoever waits look again."""
        if self._news is not None:
            self._news.set()

    # --- the application ----------------------------------------------------------------------------------------------

    async def run_asgi(self, app: Any) -> None:  # noqa: ANN401 - ASGI's
        """Have the application answer, and answer for it where it does not."""
        scope: Any = self.scope
        del self.scope  # which knows this cycle in turn: so both go as soon as nobody needs them
        scope["llm.task"] = self.task
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._give_up(_ENDS)
        except Exception as error:  # noqa: BLE001 - whatever a route did not foresee
            tell_failure(error)
            self._give_up(_FAILED)
        else:
            self._give_up(_NO_ANSWER)
        finally:
            if self.task is not None:
                self._state.tasks.discard(self.task)

    def _give_up(self, refusal: Refusal) -> None:
        """End an answer that is not whole."""
        if self.disconnected or self.response_complete or self.transport.is_closing():
            return
        self.disconnected = self.response_complete = True
        self.keep_alive = False
        if not self.response_started:
            self._state.refused(refusal.status)
            self.transport.write(refusal.response())
        self._answered(self)

    async def receive(self) -> Any:  # noqa: ANN401 - ASGI's
        """Return the next of the body, then, once there is nobody to answer, that the request is over."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.waiting_for_100_continue = False
            self.transport.write(_CONTINUE)
        if self.more_body:
            self.flow.resume_reading()
        while not (self.disconnected or self.response_complete):
            if self._pieces or not (self.more_body or self._given):
                body = b"".join(self._pieces)  # of one piece that piece itself
                self._pieces.clear()
                self._held = 0
                self._given = not self.more_body
                return {"type": "http.request", "body": body, "more_body": self.more_body}
            await self._until_told()
        return {"type": "http.disconnect"}

    async def _until_told(self) -> None:
        if self._news is None:
            self._news = asyncio.Event()
        self._news.clear()
        await self._news.wait()

    async def send(self, message: Any) -> None:  # noqa: ANN401 - ASGI's
        """Send a part of the answer, and wait while the client takes none of those before.

        Raises:
            RuntimeError: It is not its turn.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected or self.transport.is_closing():  # of the latter it hears in the loop's next turn
            return
        kind = message["type"]
        if kind == "http.response.body" and self.response_started and not self.response_complete:
            self._write(message.get("body", b""), more=message.get("more_body", False))
        elif kind == "http.response.start" and not self.response_started:
            self._start(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"the answer cannot have {kind} now")

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        # The connection ends where its client may send a body without end, of which nobody wants to know.
        last = not self.keep_alive or self.more_body or self._state.draining
        known = self._silent = self._silent or status in _WITHOUT_BODY
        parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, self._state.date]
        lines = 3 if self._state.date else 2  # with the one that is empty
        for name, value in headers:
            if name in _HEEDED:
                if name != b"content-length":
                    last = last or (name == b"connection" and b"close" in value.lower())
                    continue
                known, self._left = True, 0 if self._silent else int(value)
            parts += (name, b": ", value, b"\r\n")
            lines += 1
        if not (known or self._knows_chunks):
            last = True  # and the answer ends with it
        elif not known:
            self._chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
            lines += 1
        if last:
            self.keep_alive = False
            parts.append(b"connection: close\r\n")
            lines += 1
        self._known = known
        head = b"".join([*parts, b"\r\n"])
        if head.count(b"\n") != lines or head.count(b"\r") != lines:
            raise RuntimeError("a header of the answer holds a line break")
        self.response_started = True
        self._head = head
        if not known:
            asyncio.get_running_loop().call_soon(self._flush)  # where its first piece does not follow at once

    def _flush(self) -> None:
        if self._head and not self.disconnected:
            self.transport.write(self._head)
            self._head = b""

    def _write(self, body: bytes, *, more: bool) -> None:
        if self._silent:
            body = b""
        elif self._known:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the answer is not as long as it says")
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        if self._head:
            body, self._head = self._head + body, b""
        if body:
            self.transport.write(body)
        if not more:
            self.response_complete = True
            self.tell()
            self._answered(self)
