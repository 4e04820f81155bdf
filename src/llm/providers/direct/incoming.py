"""One answer on its way in: what a parser in C makes of the bytes, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from .fields import Fields
from .unpack import Unpacker, unpacker_for

if TYPE_CHECKING:
    from asyncio import Future

HIGH_WATER: Final = 256 * 1024
"""Bytes that wait for their reader before the connection is not read any more."""

MAX_QUIET_BYTES: Final = 64 * 1024
"""The most that may come without a byte of the body: of heads, of framing, of what follows the body."""

_MAX_FIELDS: Final = 256
_MAX_FIELD_BYTES: Final = 16 * 1024
_BODILESS: Final = frozenset({204, 304})
_FIRST_FINAL: Final = 200
_FIRST_REFUSAL: Final = 300
_NO_FIELDS: Final = Fields({})


class Wire(Protocol):
    """What an answer asks of the connection that it comes by."""

    @property
    def host(self) -> str:
        """Who answers."""
        ...

    def pause(self) -> None:
        """Read no more until `resume`."""

    def resume(self) -> None:
        """Read on."""

    def stop_sending(self) -> None:
        """Send no more of the request: the answer is there."""

    def release(self, *, reusable: bool, keep_alive: bytes | None) -> None:
        """End the exchange; `keep_alive` is the server's field of that name."""

    def abort(self) -> None:
        """Cut it."""


class Incoming:
    """What came of an answer. The connection calls `feed`, `eof` and `lose`, the parser the methods named `on_…`."""

    __slots__ = (
        "_broken",
        "_closed",
        "_ended",
        "_fields",
        "_framed",
        "_headed",
        "_held",
        "_keep",
        "_no_body",
        "_parser",
        "_pieces",
        "_quiet",
        "_surplus",
        "_unpacker",
        "_waiter",
        "_wire",
        "headers",
        "status",
    )

    def __init__(self, wire: Wire, method: str) -> None:
        """Await the answer to a request of this method."""
        self.status: int = 0
        self.headers: Fields = _NO_FIELDS
        self._wire = wire
        self._no_body = method == "HEAD"
        self._fields: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        self._held = 0  # bytes in pieces
        self._quiet = 0  # bytes since the body last grew
        self._headed = False
        self._framed = False  # its end is told by something else than the end of the connection
        self._ended = False
        self._surplus = False  # more came than the answer
        self._closed = False
        self._keep = False
        self._broken: str | None = None
        self._unpacker: Unpacker | None = None
        self._waiter: Future[None] | None = None
        # One each, so that nothing of an answer is left over for the next.
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    def feed(self, data: bytes | memoryview) -> None:
        """Take what came; it is not needed any more on return."""
        self._quiet += len(data)
        parser = self._parser
        if parser is None:
            return
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            self._fail("it changes to another protocol, which nobody asked for")
        except HttpParserError as error:
            self._fail(f"what came is no HTTP ({error}); check base_url, its http:// or https:// too")
        if self._ended or self._broken is not None:
            self._parser = None  # which holds this object in turn
            reusable = self._keep and self._broken is None and not self._surplus
            self._wire.release(reusable=reusable, keep_alive=self._fields.get(b"keep-alive"))
        elif self._quiet > MAX_QUIET_BYTES:
            self._fail(f"more than {MAX_QUIET_BYTES} bytes came around the body")
            self._wire.abort()
        elif self._held > HIGH_WATER:
            self._wire.pause()
        self._wake()

    def eof(self) -> None:
        """Take note that the connection ended in order, which ends a body of no stated length."""
        if self._headed and not self._framed and self._broken is None:
            self._ended = True
        self.lose("it ended")

    def lose(self, reason: str) -> None:
        """Take note that nothing more comes, where the answer has not ended; what came already can be read."""
        self._fail(reason)
        self._parser = None
        self._wake()

    def on_message_begin(self) -> None:
        """Begin an answer: the first, or the one after an interim one."""
        self._surplus = self._ended

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field; those that follow the body are of no use to anybody."""
        if self._headed:
            return
        name = name.lower()
        known = self._fields.get(name)
        if known is not None:
            value = known + b", " + value
            if len(value) > _MAX_FIELD_BYTES:
                self._fail(f"a field of its head is larger than {_MAX_FIELD_BYTES} bytes")
                raise ValueError
        self._fields[name] = value

    def on_headers_complete(self) -> None:
        """End the head."""
        parser = self._parser
        if self._headed or parser is None:
            return
        status = parser.get_status_code()
        fields = self._fields
        if status < _FIRST_FINAL:
            fields.clear()
            return
        coding = fields.get(b"transfer-encoding")
        if len(fields) > _MAX_FIELDS:
            self._fail(f"its head has more than {_MAX_FIELDS} fields")
            return
        if coding is not None and coding.lower() != b"chunked":
            self._fail("it comes in a transfer encoding that nobody asked for")
            return
        self.status = status
        self.headers = Fields(fields)
        self._keep = parser.should_keep_alive()
        self._framed = coding is not None or b"content-length" in fields or status in _BODILESS or self._no_body
        self._headed = True
        self._ended = self._no_body
        if status >= _FIRST_REFUSAL:
            self._wire.stop_sending()
        if b"content-encoding" in fields:
            self._unpacker = unpacker_for(fields[b"content-encoding"])

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self._ended:
            self._surplus = True
        elif not self._closed:
            self._quiet = 0
            self._held += len(data)
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        """End the answer, unless it is an interim one."""
        self._ended = self._headed and self._broken is None

    def _fail(self, reason: str) -> None:
        self._surplus = True
        if not self._ended and self._broken is None:
            self._broken = reason

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
