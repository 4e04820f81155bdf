"""A `MockUpstream` without a socket: a `Transport` on any clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llm.core.exceptions import LLMConnectionError

from .exchange import ConnectionBrokenError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .exchange import Exchange, Play


class InProcessTransport:
    """Answers in the process, raising what a transport over a network would raise."""

    def __init__(self, arrive: Callable[[str, str, Mapping[str, str], bytes], Awaitable[Exchange]]) -> None:
        """Answer what `arrive` makes of a request; the host of its address does not matter."""
        self._arrive = arrive
        self._open: set[InProcessReply] = set()

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> InProcessReply:
        """Send once and return when the answer's head is there.

        Raises:
            LLMConnectionError: The script resets the connection.
        """
        parts = urlsplit(url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        exchange = await self._arrive(method, target, headers, bytes(body or b""))
        try:
            play = await exchange.head()
        except ConnectionBrokenError as broken:
            raise _broken(broken) from broken
        except BaseException:
            exchange.leave()
            raise
        reply = InProcessReply(exchange, play, self._open.discard)
        self._open.add(reply)
        return reply

    async def close(self) -> None:
        """Close all answers that are still open."""
        for reply in tuple(self._open):
            reply.close()


class InProcessReply:
    """An answer whose body is still to be read."""

    def __init__(self, exchange: Exchange, play: Play, closed: Callable[[InProcessReply], None]) -> None:
        """Read from `exchange`; tell `closed`."""
        self.status: int = play.status
        self.headers: Mapping[str, str] = Headers(play.headers)
        self._exchange = exchange
        self._closed = closed
        self._is_closed = False

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            LLMConnectionError: It broke off.
        """
        pieces: list[bytes] = []
        while piece := await self.chunk():
            pieces.append(piece)
        return b"".join(pieces)

    async def chunk(self) -> bytes:
        """Return the next bytes as they come; empty at the orderly end of the body.

        Raises:
            LLMConnectionError: It broke off, or `close` was called.
        """
        if self._is_closed:
            raise LLMConnectionError("the answer was closed; read it before that", sent=True)
        try:
            return await self._exchange.piece()
        except ConnectionBrokenError as broken:
            raise _broken(broken) from broken

    def waiting(self) -> bool:
        """Return whether bytes wait to be read."""
        return not self._is_closed and self._exchange.waiting()

    def close(self) -> None:
        """Close it."""
        if not self._is_closed:
            self._is_closed = True
            self._closed(self)
            self._exchange.leave(LLMConnectionError("the answer was closed while it was read", sent=True))


class Headers(Mapping[str, str]):
    """Headers, found in any case of letters."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Keep them under names in lower case."""
        self._headers = {name.lower(): value for name, value in headers.items()}

    def __getitem__(self, name: str) -> str:
        """Return a header's value."""
        return self._headers[name.lower()]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._headers)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._headers)


def _broken(broken: ConnectionBrokenError) -> LLMConnectionError:
    return LLMConnectionError(f"the mock's script broke the connection: {broken}", sent=True)
