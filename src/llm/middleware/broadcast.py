"""One upstream stream and several readers, each from the first chunk and at its own pace."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llm.core.exceptions import LLMStreamInterruptedError

from .errors import another

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.stream import LLMStream
    from llm.core.types import LLMResponse, StreamChunk

_READ_AHEAD = 16


class Broadcast:
    """Reads a stream in a task of its own, so that no reader's end is the stream's.

    With one reader it stays at most 16 chunks ahead of it, so that what nobody reads is not fetched; with several it
    reads on as fast as chunks come, and none waits for another. When the last reader leaves, upstream closes.

    Attributes:
        chunks: What came so far.
        response: The whole answer, once it is there.
        error: What ended it otherwise.
        over: Whether it has ended.
        seconds: How long the whole answer took, without what it waited for its reader.
    """

    def __init__(
        self,
        upstream: LLMStream,
        on_over: Callable[[Broadcast], None],
        *,
        now: Callable[[], float],
        asked: float,
        eager: bool = False,
    ) -> None:
        """Start reading.

        Args:
            upstream: What is read.
            on_over: Is told once, when the answer is whole, broken or left by all.
            now: Returns monotonic seconds.
            asked: When the question was asked, in those.
            eager: Whether it never waits for its reader, since others may wait for its end.
        """
        self.provider: str = upstream.provider
        self.key: str | None = upstream.key
        self.chunks: list[StreamChunk] = []
        self.response: LLMResponse | None = None
        self.error: BaseException | None = None
        self.over: bool = False
        self.seconds: float = 0.0
        self._now = now
        self._asked = asked
        self._eager = eager
        self._upstream = upstream
        self._on_over = on_over
        self._readers: set[Reader] = set()
        self._wanted: asyncio.Future[None] | None = None
        self._task = asyncio.get_running_loop().create_task(self._read(), name="llm stream of several readers")

    def reader(self) -> Reader:
        """Return one more reader, who starts at the first chunk."""
        reader = Reader(self)
        self._readers.add(reader)
        self.read_on()
        return reader

    def leave(self, reader: Reader) -> None:
        """Count a reader out; with the last one upstream closes."""
        self._readers.discard(reader)
        if not self._readers and not self.over:
            self._finish(GeneratorExit())  # now, so that nobody joins what is ending
            self._upstream.leave()  # and now, so that who leaves may be asked anew at once
            self._task.cancel()

    def read_on(self) -> None:
        """Look again whether to read ahead."""
        if self._wanted is not None and not self._wanted.done() and self._may_read():
            self._wanted.set_result(None)

    async def _read(self) -> None:
        try:
            async for chunk in self._upstream:
                self.chunks.append(chunk)
                self._tell()
                while not self._may_read():
                    await self._room()
            self.response = await self._upstream.response()
            self._finish(None)
        except asyncio.CancelledError:
            message = "the stream that several identical calls shared was ended; make the call again"
            self._finish(LLMStreamInterruptedError(message, partial="".join(map(str, self.chunks))))
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised by the readers
            self._finish(error)
        finally:
            await self._upstream.aclose()

    async def _room(self) -> None:
        self._wanted = asyncio.get_running_loop().create_future()
        began = self._now()
        try:
            await self._wanted
        finally:
            self._wanted = None
            self._asked += self._now() - began

    def _may_read(self) -> bool:
        if self._eager or len(self._readers) > 1:
            return True
        lone = next(iter(self._readers), None)
        return lone is not None and len(self.chunks) - lone.position < _READ_AHEAD

    def _finish(self, error: BaseException | None) -> None:
        if self.over:
            return
        self.over = True
        self.error = error
        self.seconds = self._now() - self._asked
        self._tell()
        self._on_over(self)

    def _tell(self) -> None:
        for reader in self._readers:
            reader.wake()


class Reader:
    """A `ChunkSource`: one reader's place in a broadcast.

    Attributes:
        broadcast: What it reads.
        position: How many chunks it has read.
    """

    def __init__(self, broadcast: Broadcast) -> None:
        """Start at the first chunk."""
        self.position: int = 0
        self.broadcast: Broadcast = broadcast
        self._closed = False
        self._news: asyncio.Future[None] | None = None

    @property
    def id(self) -> str:
        """The provider's identifier of the answer; empty until it is whole."""
        response = self.broadcast.response
        return "" if response is None else response.id

    @property
    def model(self) -> str:
        """Model that answers, as the provider names it; empty until the answer is whole."""
        response = self.broadcast.response
        return "" if response is None else response.model

    async def __anext__(self) -> StreamChunk:
        """Return the next chunk.

        Raises:
            StopAsyncIteration: The answer is whole.
            LLMException: It will not be whole, or `close` was called.
        """
        broadcast = self.broadcast
        while not self._closed:
            if self.position < len(broadcast.chunks):
                self.position += 1
                broadcast.read_on()
                return broadcast.chunks[self.position - 1]
            if broadcast.error is not None:
                raise another(broadcast.error)
            if broadcast.over:
                raise StopAsyncIteration
            await self._wait()
        raise LLMStreamInterruptedError("the stream was closed before its end; read it to the end first")

    def waiting(self) -> bool:
        """Return whether chunks wait to be read while upstream is still open for them."""
        return not self.broadcast.over and self.position < len(self.broadcast.chunks)

    def close(self) -> None:
        """Leave."""
        if not self._closed:
            self._closed = True
            self.wake()
            self.broadcast.leave(self)

    def wake(self) -> None:
        """Have a read that waits look again."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _wait(self) -> None:
        self._news = asyncio.get_running_loop().create_future()
        try:
            await self._news
        finally:
            self._news = None
