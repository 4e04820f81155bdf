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
        """The answer as its events told it so far."""
        return self._reader.raw

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
                while self._events:
                    chunk = self._reader.feed(self._events.popleft())
                    if isinstance(chunk, StreamChunk):
                        return chunk
                    if chunk is not None:  # an event of several choices
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
                while await self._reply.chunk():
                    pass
        except (TimeoutError, LLMException):
            self._reply.close()


def _interrupted(how: str) -> LLMStreamInterruptedError:
    return LLMStreamInterruptedError(
        f"the stream broke off before its closing event, so the answer is not whole: {how}; .partial holds what came, "
        "and the call can be made again"
    )
