"""A stream that is read without a loop of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from llm.core.stream import LLMStream as AsyncStream

from .facade import Facade, blocking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from llm.core.types import StreamChunk, TokenUsage

_T = TypeVar("_T")


class LLMStream(Facade[AsyncStream]):
    """An answer that comes in `StreamChunk`s.

    Read it with `for`, and leave it by `with` or `close()`; leaving early closes the upstream response at once, and so
    does the end of the last name for it. One reader at a time. `stream.response()` reads what is left and returns the
    whole `LLMResponse`.
    """

    __slots__ = ()

    response: Final = blocking(AsyncStream.response)
    close: Final = blocking(AsyncStream.aclose)

    @property
    def provider(self) -> str:
        """Section of the configuration that answers; empty until the stream is open."""
        return self.inner.provider

    @property
    def key(self) -> str | None:
        """Fingerprint of the key; None until the stream is open, and where none was used."""
        return self.inner.key

    @property
    def id(self) -> str:
        """The provider's identifier of the answer, once it came; else empty."""
        return self.inner.id

    @property
    def model(self) -> str:
        """Model that answers, as the provider names it, once it came; else empty."""
        return self.inner.model

    @property
    def text(self) -> str:
        """All text that came so far; of several choices the first's."""
        return self.inner.text

    @property
    def all_text(self) -> str:
        """All text that came so far, of every choice, in the order in which it came."""
        return self.inner.all_text

    @property
    def usage(self) -> TokenUsage | None:
        """Tokens, once the provider has sent them."""
        return self.inner.usage

    @property
    def cost(self) -> float | None:
        """US dollars, once the provider has sent them."""
        return self.inner.cost

    def waiting(self) -> bool:
        """Return whether more of it is there already: who passes it on can wait for that, and send it together."""
        return self.inner.waiting()

    def begin(self) -> Self:
        """Wait for the first chunk, so that until then a failure is the call's.

        Raises:
            LLMException: The call failed; the kinds say how.
        """
        self.home.run(self.inner.begin())
        return self

    def partials(self) -> Iterator[dict[str, Any]]:
        """Read what is left as JSON that grows: plain values, of which what has not come yet is absent."""
        growing = self.inner.partials()
        return iter(lambda: self.home.run(_next(growing)), None)

    def __enter__(self) -> Self:
        """Open the stream."""
        return self.begin()

    def __exit__(self, *_: object) -> None:
        """Leave the stream."""
        self.close()

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> StreamChunk:
        """Return the next chunk.

        Raises:
            StopIteration: The answer is whole.
            LLMStreamInterruptedError: The stream ended without its closing event; `.partial` holds what came.
            LLMException: Another failure.
        """
        chunk = self.home.run(_next(self.inner))
        if chunk is None:
            raise StopIteration
        return chunk


async def _next(values: AsyncIterator[_T]) -> _T | None:
    return await anext(values, None)
