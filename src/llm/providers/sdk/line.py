"""The vendor's client on our connections: it writes a request, and what comes of it is ours to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx2

from llm.core.exceptions import LLMException
from llm.providers.frames import bare

if TYPE_CHECKING:
    from llm.core.protocols import Reply, Transport

_OUTCOME: Final = "llm"
_FRAMING: Final = frozenset({"connection", "content-length", "host", "transfer-encoding"})
"""What a transport writes itself, for the same address and body in the same words."""


class Line(httpx2.AsyncBaseTransport):
    """Sends what a client of `httpx2` has written by a `Transport` of ours.

    The client gets an empty answer of status 200, whatever came: it has nothing to read, to repeat, to follow or to
    raise. The outcome lies beside it, for `outcome_of`.
    """

    def __init__(self, transport: Transport) -> None:
        """Send by `transport`, which stays open when this closes."""
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send once."""
        body = await request.aread()
        headers = {name: value for name, value in request.headers.items() if name not in _FRAMING}
        outcome: Reply | LLMException
        try:
            outcome = await self._transport.request(
                request.method, str(request.url), headers=headers, body=body or None
            )
        except LLMException as error:
            outcome = bare(error)
        return httpx2.Response(200, extensions={_OUTCOME: outcome})


def client_on(transport: Transport) -> httpx2.AsyncClient:
    """Return what a vendor's client takes as its `http_client`."""
    # What our connections unpack is said here, not there: a signature holds over this header too.
    packing = {"accept-encoding": "gzip, deflate"}
    return httpx2.AsyncClient(transport=Line(transport), headers=packing, trust_env=False, follow_redirects=False)


def outcome_of(response: httpx2.Response) -> Reply:
    """Return what really came.

    Raises:
        LLMException: Nothing did.
    """
    outcome: Reply | LLMException = response.extensions[_OUTCOME]
    if isinstance(outcome, LLMException):
        raise outcome
    return outcome
