"""The chunks of a streamed answer, read from an HTTP reply."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from llm.core.exceptions import LLMConnectionError, LLMException, LLMStreamInterruptedError
from llm.core.types import StreamChunk
from llm.utils.sse import EventDecoder, EventTooLargeError

from .frames import bare
from .wire import senseless

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llm.core.protocols import Reply
    from llm.utils.clock import Clock
    from llm.utils.sse import Event

    from .dialect import EventReader

_LINGER: Final = 0.05
"""Seconds that a connection gets to end in order after the closing event, so that it can serve again."""

_LINGER_PIECES: Final = 8
"""What it may send in that time, in pieces as they come: more is no end."""

_MAX_QUIET_BYTES: Final = 64 * 1024 * 1024
"""The most that may come without a chunk for the caller, such as comments: no whole answer may be larger, either."""


class ReplyChunks:
    """A `ChunkSource` over one reply; whole only when the closing event came."""

    def __init__(self, reply: Reply, reader: EventReader, clock: Clock, tell: Callable[[LLMException], None]) -> None:
        """Read `reply` by `reader`; `tell` completes an error by what is known of the exchange."""
        self._reply = reply
        self._reader = reader
        self._clock = clock
        self._tell = tell
        self._decoder = EventDecoder()
        self._events: deque[Event] = deque()
        self._ready: deque[StreamChunk] = deque()
        self._quiet = 0  # bytes since the last chunk

    @property
    def id(self) -> str:
        """The provider's identifier of the answer, once it came."""
        return self._reader.id

    @property
    def model(self) -> str:
        """Model that answers, once it came."""
        return self._reader.model

    @property
    def raw(self) -> Mapping[str, Any] | None:
        """The answer as its events told it so far.

        Raises:
            LLMServerError: It cannot be put together.
        """
        try:
            return self._reader.raw
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
            failure = senseless("events that do not fit each other")
        self._tell(failure)
        raise failure

    async def __anext__(self) -> StreamChunk:
        """Return the next chunk.

        Raises:
            StopAsyncIteration: The closing event came.
            LLMStreamInterruptedError: The connection ended before it, however politely.
            LLMException: An event tells of a failure, or makes no sense.
        """
        try:
            while True:
                if self._ready:
                    return self._ready.popleft()
                # What follows the closing event is no part of the answer, whether it came with it or not.
                while self._events and not self._reader.done:
                    chunk = self._reader.feed(self._events.popleft())
                    if isinstance(chunk, StreamChunk):
                        self._quiet = 0
                        return chunk
                    if chunk is not None:  # an event of several choices
                        self._quiet = 0
                        self._ready.extend(chunk[1:])
                        return chunk[0]
                if self._reader.done:
                    break
                await self._more()
        except LLMException as error:
            self._tell(error)
            failure = bare(error)
        else:
            await self._finish()
            raise StopAsyncIteration
        raise failure

    def waiting(self) -> bool:
        """Return whether data waits to be read."""
        return bool(self._ready or self._events) or self._reply.waiting()

    def close(self) -> None:
        """Close the reply."""
        self._reply.close()

    async def _more(self) -> None:
        try:
            data = await self._reply.chunk()
            if data:
                self._events.extend(self._decoder.feed(data))
                self._quiet += len(data)
                if self._quiet > _MAX_QUIET_BYTES:
                    raise senseless(f"more than {_MAX_QUIET_BYTES} bytes without a part of an answer")
                return
        except EventTooLargeError as error:
            failure: LLMException = senseless(str(error))
        except LLMConnectionError as error:
            failure = _interrupted(error.message)
        else:
            failure = _interrupted("the connection ended")
        raise failure

    async def _finish(self) -> None:
        # The answer is whole; how its connection ends makes no difference to it any more.
        try:
            async with self._clock.timeout(_LINGER):
                for _ in range(_LINGER_PIECES):
                    if not await self._reply.chunk():
                        return
        except (TimeoutError, LLMException):
            pass
        self._reply.close()


def _interrupted(how: str) -> LLMStreamInterruptedError:
    return LLMStreamInterruptedError(
        f"the stream broke off before its closing event, so the answer is not whole: {how}; .partial holds what came, "
        "and the call can be made again"
    )
