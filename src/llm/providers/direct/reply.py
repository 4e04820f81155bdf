"""An answer as the caller reads it: whole, or as it comes."""

from __future__ import annotations

from asyncio import get_running_loop
from types import coroutine
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import LLMConnectionError, LLMServerError

from .incoming import Incoming
from .unpack import PackingError

if TYPE_CHECKING:
    from collections.abc import Generator

    from .incoming import Wire
    from .unpack import Unpacker

_UNTURNED: Final = 1024 * 1024
"""Bytes that a reader takes before others have their turn: a few packed ones become many without any wait."""


class DirectReply(Incoming):
    """A `Reply` on a connection of ours."""

    __slots__ = ("_max_bytes", "_taken", "_turned")

    def __init__(self, wire: Wire, method: str, max_bytes: int) -> None:
        """Await the answer to a request of this method; `max_bytes` is the most that `read` takes."""
        super().__init__(wire, method)
        self._max_bytes = max_bytes
        self._taken = 0  # bytes given to the caller
        self._turned = 0  # of these, when others last had their turn

    async def head(self) -> None:
        """Return when the head is there.

        Raises:
            LLMConnectionError: It does not come.
        """
        while not self._headed:
            if self._broken is not None:
                raise self._failure(f"the connection to {self._wire.host} broke before an answer came")
            await self._news()

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            LLMConnectionError: It broke off, or cannot be unpacked.
            LLMServerError: It is larger than any answer may be.
        """
        if self._ended and self._unpacker is None and 0 < self._held <= self._max_bytes:  # it came with its head
            self._taken += self._held
            return self._next()
        pieces: list[bytes] = []
        while data := await self.chunk():
            pieces.append(data)
            if self._taken > self._max_bytes:
                self.close()
                raise LLMServerError(
                    f"the answer is larger than {self._max_bytes} bytes, which no answer should be, and was not read; "
                    "check base_url"
                )
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def chunk(self) -> bytes:
        """Return the next bytes as they come; empty at the orderly end of the body.

        Raises:
            LLMConnectionError: It broke off, cannot be unpacked, or `close` was called.
        """
        while True:
            if self._taken - self._turned > _UNTURNED and self.waiting():
                self._turned = self._taken
                await _turn()
            if self._closed:
                raise LLMConnectionError("the answer was closed before its end", sent=True)
            if self._held or self.waiting():
                unpacker = self._unpacker
                data = self._next() if unpacker is None else self._next_unpacked(unpacker)
                if data:
                    self._taken += len(data)
                    return data
            elif self._broken is not None:
                self._closed = True
                raise self._failure("the connection broke in the middle of the answer")
            elif not self._ended:
                await self._news()
            else:
                return self._end()

    def waiting(self) -> bool:
        """Return whether bytes wait to be read."""
        return self._held > 0 or (self._unpacker is not None and self._unpacker.waiting)

    def close(self) -> None:
        """Cut the connection, unless the answer has ended, and with it its claim to a connection."""
        if self._closed:
            return
        self._closed = True
        self._drop()
        if not self._ended and self._broken is None:
            self._wire.abort()  # which wakes who reads

    async def _news(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("two readers wait for one answer")
        self._waiter = get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _next(self) -> bytes:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._held = 0
        if not self._ended:
            self._wire.resume()
        return data

    def _next_unpacked(self, unpacker: Unpacker) -> bytes:
        if not unpacker.waiting:  # or what is packed would pile up, for it comes faster than it is read unpacked
            unpacker.take(self._next())
        try:
            return unpacker.step()
        except PackingError as error:
            reason = str(error)
        self.close()
        raise LLMConnectionError(f"the answer cannot be unpacked: {reason}; it can be sent again", sent=True)

    def _end(self) -> bytes:
        if self._unpacker is not None and not self._unpacker.whole:
            self._closed = True
            raise LLMConnectionError(
                "the connection broke in the middle of the answer: what is packed breaks off; it can be sent again",
                sent=True,
            )
        return b""

    def _failure(self, what: str) -> LLMConnectionError:
        return LLMConnectionError(f"{what}: {self._broken}; it can be sent again", sent=True)

    def _drop(self) -> None:
        self._pieces.clear()
        self._held = 0
        self._unpacker = None


@coroutine
def _turn() -> Generator[None]:
    """Let the event loop do what else there is, once."""
    yield
