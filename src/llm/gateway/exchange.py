"""One request of a client, and its one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from llm.core.exceptions import LLMInvalidRequestError
from llm.providers.endpoints.inquiry import EVENTS, JSON, Inquiry

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    from llm.core.exceptions import LLMException
    from llm.providers.endpoints.inquiry import Header

    Scope: TypeAlias = MutableMapping[str, Any]
    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]

_NO_CONTENT: Final = 204

LEFT: Final = 499
"""What the log and the metrics call the status of a request whose client left before it had one."""

_PLAIN: Final = frozenset({b"identity", b""})


class ClientLeftError(Exception):
    """There is nobody any more to be answered."""


class Exchange(Inquiry):
    """What is known of one request, and the one way to answer it.

    Attributes:
        scope: The ASGI scope.
        started: Monotonic seconds at which it came.
        status: Status of the answer; 0 before it.
        ending: Why the server ends it; None while it does not.
        task: The task that answers it.
        more: Headers that the answer has beside its own.
    """

    __slots__ = ("_headers", "_most", "_receive", "_send", "ending", "more", "scope", "started", "status", "task")

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, started: float, most: int) -> None:
        """Take a request's ASGI scope and channels; `most` is how many bytes its body may have."""
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        super().__init__(self._headers.get(b"x-request-id"))
        self.scope: Scope = scope
        self.started: float = started
        self._receive = receive
        self._send = send
        self._most = most
        self.status: int = 0
        self.ending: LLMException | None = None
        self.task: Task[Any] | None = None
        self.more: list[Header] = []

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a header, whose name is in lower case; of several the last."""
        return self._headers.get(name)

    async def body(self) -> bytes:
        """Return the whole body.

        Raises:
            LLMInvalidRequestError: It is compressed, or larger than it may be; where its length is declared, nothing of
                it was read.
            ClientLeftError: The client left before its end.
        """
        if self._headers.get(b"content-encoding", b"identity").strip().lower() not in _PLAIN:
            raise LLMInvalidRequestError(
                "the header content-encoding: expected none; send the body as it is, uncompressed", status=415
            )
        length = self._headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > self._most:
            raise self._too_large()
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            body: bytes = message.get("body", b"")
            if len(body) > self._most:
                raise self._too_large()
            return body
        return await self._pieces(message)

    async def _pieces(self, message: Message) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while message["type"] == "http.request":
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > self._most:
                raise self._too_large()
            pieces.append(piece)
            if not message.get("more_body"):
                return b"".join(pieces)
            message = await self._receive()
        raise ClientLeftError

    def _too_large(self) -> LLMInvalidRequestError:
        return LLMInvalidRequestError(
            f"the body is larger than {self._most} bytes (gateway.max_body_bytes); send a smaller one", status=413
        )

    async def answer(self, status: int, body: bytes, headers: Iterable[Header] = (JSON,)) -> None:
        """Send the whole answer."""
        self.status = status
        head = [*headers, (b"x-request-id", self.request_id), *self.more]
        if status != _NO_CONTENT:
            head.append((b"content-length", b"%d" % len(body)))
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        await self._send({"type": "http.response.body", "body": body})

    def begin(self, status: int, headers: Iterable[Header] = EVENTS) -> Awaitable[None]:
        """Send the head of an answer that comes in pieces."""
        self.status = status
        head = [*headers, (b"x-request-id", self.request_id), *self.more]
        return self._send({"type": "http.response.start", "status": status, "headers": head})

    def write(self, data: bytes) -> Awaitable[None]:
        """Send a piece, and wait until the client has taken enough of those before."""
        return self._send({"type": "http.response.body", "body": data, "more_body": True})

    def finish(self, data: bytes = b"") -> Awaitable[None]:
        """Send the last piece, and end the answer."""
        return self._send({"type": "http.response.body", "body": data})

    def end(self, error: LLMException) -> None:
        """End it before its time: a stream tells of `error` in its own way, any other answer is that error."""
        self.ending = error
        if self.stream is not None:
            self.stream.interrupt(error)
        elif self.task is not None:
            self.task.cancel()
