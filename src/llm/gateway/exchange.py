"""One request of a client, and its one answer."""

from __future__ import annotations

import re
from itertools import count
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote

from llm.core.exceptions import LLMInvalidRequestError
from llm.telemetry.names import OPERATION_CHAT

from .caller import ANYONE

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    from llm.core.call import Call
    from llm.core.exceptions import LLMException
    from llm.core.stream import LLMStream
    from llm.core.types import TokenUsage

    from .caller import Caller

    Scope: TypeAlias = MutableMapping[str, Any]
    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]
    Header: TypeAlias = tuple[bytes, bytes]

JSON: Final = (b"content-type", b"application/json")
EVENTS: Final = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))

_NO_CONTENT: Final = 204

LEFT: Final = 499
"""What the log and the metrics call the status of a request whose client left before it had one."""

_PLAIN: Final = frozenset({b"identity", b""})
_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_PRINTED: Final = re.compile(r"[!-~]{1,256}")
_numbers: Final = count(1)
_start: Final = token_hex(8)


class ClientLeftError(Exception):
    """There is nobody any more to be answered."""


class Exchange:
    """What is known of one request, and the one way to answer it.

    Attributes:
        scope: The ASGI scope.
        started: Monotonic seconds at which it came.
        request_id: Its name in the answer's headers and in the log: the client's own where that is sane.
        caller: Who asks.
        status: Status of the answer; 0 before it.
        model: Model that was asked for, then the one that answered; None where none is.
        provider: Section of the configuration that answered.
        usage: Tokens that the answer took.
        call: The call's record; None where none was made.
        cached: Whether no provider was asked.
        error: How it failed.
        ending: Why the server ends it; None while it does not.
        stream: The answer's stream, while it runs.
        operation: OpenTelemetry's word for what is asked.
        first: Seconds to a stream's first chunk; None before it, and where there is no stream.
        generating: Seconds that the answer took to be made; None where none was.
        task: The task that answers it.
        anthropic: Whether Anthropic's dialect is spoken.
        more: Headers that the answer has beside its own.
    """

    __slots__ = (
        "_headers", "_most", "_receive", "_send", "anthropic", "cached", "call", "caller", "ending", "error", "first",
        "generating", "model", "more", "operation", "provider", "request_id", "scope", "started", "status", "stream",
        "task", "usage",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, started: float, most: int) -> None:
        """Take a request's ASGI scope and channels; `most` is how many bytes its body may have."""
        self.scope: Scope = scope
        self.started: float = started
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        self._send = send
        self._most = most
        self.request_id: bytes = _request_id(self._headers.get(b"x-request-id"))
        self.caller: Caller = ANYONE
        self.status: int = 0
        self.model: str | None = None
        self.provider: str | None = None
        self.usage: TokenUsage | None = None
        self.call: Call | None = None
        self.cached: bool = False
        self.error: BaseException | None = None
        self.ending: LLMException | None = None
        self.stream: LLMStream | None = None
        self.operation: str = OPERATION_CHAT
        self.first: float | None = None
        self.generating: float | None = None
        self.task: Task[Any] | None = None
        self.anthropic: bool = False
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

    async def begin(self, status: int, headers: Iterable[Header] = EVENTS) -> None:
        """Send the head of an answer that comes in pieces."""
        self.status = status
        head = [*headers, (b"x-request-id", self.request_id), *self.more]
        await self._send({"type": "http.response.start", "status": status, "headers": head})

    async def write(self, data: bytes) -> None:
        """Send a piece, and wait until the client has taken enough of those before."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        """Send the last piece, and end the answer."""
        await self._send({"type": "http.response.body", "body": data})

    def end(self, error: LLMException) -> None:
        """End it before its time: a stream tells of `error` in its own way, any other answer is that error."""
        self.ending = error
        if self.stream is not None:
            self.stream.interrupt(error)
        elif self.task is not None:
            self.task.cancel()


def told(value: str) -> bytes:
    """Return a name from elsewhere as the value of a header; what no header may hold is escaped."""
    return value.encode() if _PRINTED.fullmatch(value) else quote(value[:256], safe="").encode()[:1024]


def _request_id(given: bytes | None) -> bytes:
    if given is not None and _SANE_ID.fullmatch(given):
        return given
    return f"req_{_start}{next(_numbers):08x}".encode()
