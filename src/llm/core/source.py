"""The seam between a stream and where its chunks come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .types import StreamChunk


class ChunkSource(Protocol):
    """Where a stream's chunks come from: a connection, a model on the box, a stored answer.

    One that knows more of the answer than its chunks tell has that as `raw`, a mapping, for `LLMResponse.raw`.
    """

    @property
    def id(self) -> str:
        """The provider's identifier of the answer, as far as it is known; else empty."""
        ...

    @property
    def model(self) -> str:
        """Model that answers, as the provider names it, as far as it is known; else empty."""
        ...

    async def __anext__(self) -> StreamChunk:
        """Return the next chunk.

        Raises:
            StopAsyncIteration: The closing event came: the answer is whole.
            LLMException: It will not be whole.
        """
        ...

    def waiting(self) -> bool:
        """Return whether data waits to be read."""
        ...

    def close(self) -> None:
        """End it at once, as often as one likes; a read that is under way then raises."""


class Replay:
    """A source of chunks that are there already: a stored answer, or one that came whole."""

    def __init__(self, chunks: Iterable[StreamChunk], *, id: str = "", model: str = "") -> None:  # noqa: A002
        """Keep the chunks; `id` and `model` as in `ChunkSource`."""
        self.id = id
        self.model = model
        self._chunks = iter(chunks)

    async def __anext__(self) -> StreamChunk:
        """Return the next chunk; raises `StopAsyncIteration` after the last."""
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration

    def waiting(self) -> bool:
        """Return False: nothing upstream is held open."""
        return False

    def close(self) -> None:
        """Drop what is left."""
        self._chunks = iter(())
