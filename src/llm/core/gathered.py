"""What has come of a stream so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .types import StreamChunk, TokenUsage


class Gathered:
    """Chunks, and what can be said of them before the end."""

    __slots__ = ("_chunks",)

    def __init__(self) -> None:
        """Start without any."""
        self._chunks: list[StreamChunk] = []

    @property
    def text(self) -> str:
        """All text that came so far; of several choices the first's."""
        return "".join([chunk.content for chunk in self._chunks if not chunk.index])

    @property
    def all_text(self) -> str:
        """All text that came so far, of every choice, in the order in which it came."""
        return "".join([chunk.content for chunk in self._chunks])

    @property
    def usage(self) -> TokenUsage | None:
        """Tokens, once the provider has sent them."""
        return next((chunk.usage for chunk in reversed(self._chunks) if chunk.usage is not None), None)

    @property
    def cost(self) -> float | None:
        """US dollars, once the provider has sent them."""
        return next((chunk.cost for chunk in reversed(self._chunks) if chunk.cost is not None), None)
