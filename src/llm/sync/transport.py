"""The transport under the vendors' own clients, for those of them that block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from .portal import Portal


class BlockingTransport(httpx2.BaseTransport):
    """What `http_transport()` of a blocking manager returns; any number of threads may use it."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, home: Portal) -> None:
        """Send to `inner`, which lives where `home` leads."""
        self._inner = inner
        self._home = home

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request; a stream when its first event is there.

        Raises:
            ConnectError: The manager is closed.
            ReadTimeout: No answer came within the request's read time-out.
        """
        request.read()
        response = self._home.run(self._inner.handle_async_request(request))
        stream = response.stream
        if isinstance(stream, httpx2.SyncByteStream):  # it is whole
            return response
        return httpx2.Response(response.status_code, headers=response.headers, stream=_Pieces(stream, self._home))


class _Pieces(httpx2.SyncByteStream):
    """A stream on its way to a client, a piece when it comes; closing it ends the call."""

    def __init__(self, inner: httpx2.AsyncByteStream, home: Portal) -> None:
        self._inner = inner
        self._home = home

    def __iter__(self) -> Iterator[bytes]:
        """Yield what comes."""
        pieces = aiter(self._inner)
        while (piece := self._home.run(_next(pieces))) is not None:
            yield piece

    def close(self) -> None:
        """End the call, if it goes on."""
        self._home.run(self._inner.aclose())


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)
