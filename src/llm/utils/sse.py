"""Server-sent events out of bytes, as they come; no I/O.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from typing import Final, TypeAlias

Event: TypeAlias = tuple[str, bytes]
"""Name of the event (empty where it has none), and its data."""

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
"""No vendor sends an event near this; a stream that does is no stream of events, and must not fill the memory."""

_BOM: Final = b"\xef\xbb\xbf"


class EventTooLargeError(ValueError):
    """One event is larger than the cap."""

    def __init__(self, max_bytes: int) -> None:
        """Name the cap."""
        super().__init__(f"one server-sent event is larger than {max_bytes} bytes")


class EventDecoder:
    """Takes bytes cut anywhere and returns the events that are complete.

    Lines end with a line feed, a carriage return, or both, and with nothing else. An event that has not ended with a
    blank line when the bytes end never was one.
    """

    __slots__ = ("_after_cr", "_max_bytes", "_parts", "_size", "_started")

    def __init__(self, *, max_bytes: int = MAX_EVENT_BYTES) -> None:
        """Start a stream; `max_bytes` is the most that one event may take."""
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._started = False
        self._after_cr = False

    def feed(self, data: bytes) -> list[Event]:
        """Take more bytes and return the events that they complete.

        Raises:
            EventTooLargeError: An event is larger than the cap.
        """
        if self._after_cr or b"\r" in data:
            data = self._unify(data)
        # Joined only when an event ends, so that a long one in small pieces is not copied with each of them.
        if b"\n\n" not in data and not (self._parts and data[:1] == b"\n" == self._parts[-1][-1:]):
            if data:
                self._keep(data)
            return []
        if self._parts:
            data = b"".join((*self._parts, data))
            self._parts.clear()
            self._size = 0
        blocks = data.split(b"\n\n")
        if rest := blocks.pop():
            self._keep(rest)
        if len(data) > self._max_bytes:
            self._check(max(map(len, blocks), default=0))
        return [event for block in blocks if block and (event := self._event(block)) is not None]

    def _unify(self, data: bytes) -> bytes:
        # A carriage return ends its line at once, without waiting whether a line feed follows in the next bytes.
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _keep(self, rest: bytes) -> None:
        self._parts.append(rest)
        self._size += len(rest)
        self._check(self._size)

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise EventTooLargeError(self._max_bytes)

    def _event(self, block: bytes) -> Event | None:
        if not self._started:
            self._started = True
            block = block.removeprefix(_BOM)
        # Nearly all events are a line of data, or its name's line and that.
        if block[:6] == b"data: ":
            if b"\n" not in block:
                return "", block[6:]
        elif block[:7] == b"event: ":
            name, _, data = block.partition(b"\n")
            if data[:6] == b"data: " and b"\n" not in data:
                return name[7:].decode(errors="replace"), data[6:]
        return _read(block)


def _read(block: bytes) -> Event | None:
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return (name.decode(errors="replace"), b"\n".join(data)) if data else None
