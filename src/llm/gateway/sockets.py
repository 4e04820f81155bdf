"""A WebSocket, whatever is spoken on it: messages in and out, and the operations that run on it at once."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import orjson

from llm.core.exceptions import LLMException, LLMInvalidRequestError, LLMPoolExhaustedError, LLMRateLimitError
from llm.providers.endpoints.bodies import read_json

from .exchange import LEFT, Exchange
from .faults import VIEW
from .logs import tell_fault, tell_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence

    from llm.providers.endpoints.caller import Caller

    from .desk import Desk
    from .exchange import Message, Receive, Scope, Send

MOST_OPERATIONS: Final = 32
"""Of one socket, at once."""
RESTARTING: Final = 1012
"""The close code of a server that goes away; clients may come back."""


class Host(Protocol):
    """What sockets are served for.

    Attributes:
        desk: What routes work with.
        running: Requests that are being answered, the operations of sockets among them.
    """

    desk: Desk
    running: set[Exchange]

    def caller(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller:
        """Return who sent a request with these headers.

        Raises:
            LLMAuthenticationError: Nobody who may.
        """
        ...


class Socket(ABC):
    """One connection, from its acceptance to its end.

    Nothing waits in a queue here: a message is read when those before it were seen to, and an operation goes on when
    the client has taken what it sent. So a client that reads slowly holds up itself alone.

    Attributes:
        endpoint: What metrics and the log call its operations.
        protocol: The subprotocol that is spoken; None: there is none.
        agreed: The same, where the client offers it.
    """

    endpoint: ClassVar[str]
    protocol: ClassVar[str | None] = None

    def __init__(self, host: Host, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a connection that is not accepted yet."""
        self.host: Host = host
        self.scope: Scope = {**scope, "method": "WS"}
        self.headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        offered: Collection[str] = scope.get("subprotocols") or ()
        self.agreed: str | None = self.protocol if self.protocol in offered else None
        self._receive = receive
        self._send = send
        self._clock = host.desk.clock
        self._named: dict[Hashable, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._id = Exchange(self.scope, receive, send, started=0.0, most=0).request_id
        self._numbers = count(1)
        self._leaving = False
        self._closed = False

    async def run(self) -> None:
        """Serve it until one of both sides ends it; all its operations have ended then."""
        try:
            await self._send({"type": "websocket.accept", "subprotocol": self.agreed})
            async with asyncio.TaskGroup() as self._group:
                try:
                    await self._listen()
                finally:
                    self._closed = True
                    for task in self._tasks:
                        task.cancel()
        except OSError:  # it went as it was accepted
            pass
        finally:
            self.left()

    def drain(self) -> None:
        """Start no more operations, and close when those that run have ended."""
        if not self._leaving:
            self._leaving = True
            self._close_if_done()

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a message, and return when the client has room for the next; one that is gone is not told."""
        if self._closed:
            return
        try:
            await self._send({"type": "websocket.send", "text": orjson.dumps(message).decode()})
        except OSError:  # it is gone, and the listener hears of it
            self._closed = True

    async def close(self, code: int, reason: str) -> None:
        """Close it; what runs is ended, and nothing is sent any more."""
        if not self._closed:
            self._closed = True
            with suppress(OSError):
                await self._send({"type": "websocket.close", "code": code, "reason": reason})

    def close_soon(self, code: int, reason: str) -> None:
        """Do as `close`, where nothing can be awaited."""
        if self._group is not None and not self._closed:
            self._group.create_task(self.close(code, reason))

    def next_id(self) -> bytes:
        """Return the name of the next operation in the log: the connection's, and a number."""
        return self._id + b"-%d" % next(self._numbers)

    def begin(self, name: Hashable, work: Callable[[Exchange], Awaitable[None]]) -> None:
        """Start an operation under a name that is free."""
        if self._group is not None:
            task = self._named[name] = self._group.create_task(self._operate(name, work))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def runs(self, name: Hashable) -> bool:
        """Return whether an operation has this name."""
        return name in self._named

    def is_last_word(self, name: Hashable) -> bool:
        """Free the name of an operation that has one more thing to say; False where it was ended before."""
        return self._named.pop(name, None) is not None

    def end(self, name: Hashable) -> None:
        """End an operation, and what it asked a provider for; without a word of it."""
        task = self._named.pop(name, None)
        if task is not None:
            task.cancel()

    @property
    def full(self) -> bool:
        """Whether no more operations may be started beside those that run."""
        return len(self._tasks) >= MOST_OPERATIONS

    @property
    def leaving(self) -> bool:
        """Whether the gateway is going away."""
        return self._leaving or self.host.desk.draining

    @property
    def longest(self) -> int:
        """Bytes of a message; its client is known."""
        return self.host.desk.manager.config.gateway.max_body_bytes

    @abstractmethod
    async def heard(self, message: dict[str, Any]) -> None:
        """Act on a message."""

    @abstractmethod
    async def misheard(self, error: LLMException) -> None:
        """Answer what is no message."""

    @abstractmethod
    async def failed(self, name: Hashable, exchange: Exchange, error: LLMException) -> None:
        """Tell how an operation failed."""

    async def opened(self) -> None:  # noqa: B027 - most have nothing to do
        """Do what is to be done when the connection is accepted."""

    def left(self) -> None:  # noqa: B027 - most have nothing to do
        """Do what is to be done when the connection has ended."""

    async def _listen(self) -> None:
        await self.opened()
        if self._leaving:
            self._close_if_done()
        while not self._closed:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                return
            try:
                message = self._read(event)
            except LLMInvalidRequestError as error:
                await self.misheard(error)
            else:
                await self.heard(message)

    def _read(self, event: Message) -> dict[str, Any]:
        text: str | None = event.get("text")
        if text is None:
            raise LLMInvalidRequestError("a message: expected JSON as text, not as bytes", status=400)
        most = self.longest
        body = text.encode()
        if len(body) > most:
            raise LLMInvalidRequestError(f"the message is larger than {most} bytes; send a smaller one", status=413)
        return read_json(body)

    async def _operate(self, name: Hashable, work: Callable[[Exchange], Awaitable[None]]) -> None:
        desk, started = self.host.desk, self._clock.now()
        exchange = self._exchange(started)
        self.host.running.add(exchange)
        desk.counts.active += 1
        try:
            exchange.caller = self.host.caller(self.headers)
            await work(exchange)
            exchange.status = exchange.status or HTTPStatus.OK
        except LLMException as error:
            await self._tell(name, exchange, error)
        except asyncio.CancelledError as error:
            if exchange.ending is None or self._closed:
                exchange.error, exchange.status = error, LEFT
                raise
            await self._tell(name, exchange, exchange.ending)
        except Exception as error:  # noqa: BLE001 - whatever was not foreseen
            tell_fault(error, exchange)
            failure = LLMException("the gateway failed; its log has more under this request's id")
            await self._tell(name, exchange, failure)
        finally:
            self.host.running.discard(exchange)
            desk.counts.active -= 1
            seconds = desk.clock.now() - started
            desk.counts.ended(exchange, self.endpoint, seconds)
            tell_request(exchange, seconds=seconds, wall=desk.clock.wall())

    async def _tell(self, name: Hashable, exchange: Exchange, error: LLMException) -> None:
        exchange.error, exchange.status = exchange.error or error, VIEW.wire(error).status
        if isinstance(error, LLMRateLimitError):
            exchange.more = self.host.desk.limits(exchange)
        if self.is_last_word(name):
            await self.failed(name, exchange, error)

    def _exchange(self, started: float) -> Exchange:
        exchange = Exchange(self.scope, self._receive, self._send, started=started, most=0)
        exchange.request_id = self.next_id()
        exchange.task = asyncio.current_task()
        return exchange

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._leaving:
            self._close_if_done()

    def _close_if_done(self) -> None:
        if not self._tasks:
            self.close_soon(RESTARTING, "the gateway is going away")


def going_away() -> LLMException:
    """Return the error of an operation that comes, or still runs, as the gateway goes away."""
    return LLMPoolExhaustedError("the gateway is shutting down; ask again, it or another one")
