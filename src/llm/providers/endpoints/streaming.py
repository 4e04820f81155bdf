"""An answer in pieces, and what its inquiry keeps of it, whatever the pieces are sent as."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm.core.stream import LLMStream
    from llm.core.types import LLMRequest

    from .inquiry import Inquiry
    from .service import Service


class Streaming:
    """Asks for a stream in the name of an inquiry's caller: `async with Streaming(…) as chunks`.

    What becomes of it stands on the inquiry; leaving it, by `leave` where nothing can be awaited, closes the stream.
    """

    __slots__ = ("_began", "_chunks", "_inquiry", "_request", "_service")

    def __init__(self, service: Service, inquiry: Inquiry, request: LLMRequest) -> None:
        """Ask nothing yet; `request` is given away.

        Raises:
            LLMException: The caller may not ask for that.
        """
        self._service = service
        self._inquiry = inquiry
        self._request = request
        inquiry.model = request.model
        self._began = service.clock.now()
        self._chunks = service.asking.stream(inquiry.caller, request)

    async def __aenter__(self) -> LLMStream:
        """Return the stream when its first chunk is in hand.

        Raises:
            LLMException: The call failed before.
        """
        chunks, inquiry, request = self._chunks, self._inquiry, self._request
        try:
            await chunks.begin()
        except BaseException:
            self.leave()
            raise
        inquiry.stream, inquiry.call, inquiry.first = chunks, request.call, self._service.clock.now() - self._began
        inquiry.model, inquiry.provider = chunks.model or request.model, chunks.provider
        inquiry.cached = request.call is not None and request.call.sends == 0
        return chunks

    async def __aexit__(self, *_: object) -> None:
        """Leave it."""
        self.leave()

    def leave(self) -> None:
        """Close the stream, if it goes on."""
        chunks, inquiry = self._chunks, self._inquiry
        inquiry.stream, inquiry.call = None, self._request.call or inquiry.call
        inquiry.usage, inquiry.generating = chunks.usage, self._service.clock.now() - self._began
        chunks.leave()
