"""The vendor's client on our connections: it writes a request, and what comes of it is ours to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx2

from llm.core.exceptions import LLMException
from llm.providers.frames import bare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.protocols import Reply, Transport
    from llm.utils.redact import Secret

_OUTCOME: Final = "llm"
_FRAMING: Final = frozenset({"connection", "content-length", "host", "transfer-encoding"})
"""What a transport writes itself, for the same address and body in the same words."""


class Line(httpx2.AsyncBaseTransport):
    """Sends what a client of `httpx2` has written by a `Transport` of ours.

    The client gets an empty answer of status 200, whatever came: it has nothing to read, to repeat, to follow or to
    raise. The outcome lies beside it, for `outcome_of`.
    """

    def __init__(self, transport: Transport, hidden: Mapping[str, Secret]) -> None:
        """Send by `transport`, which stays open when this closes, with the headers that are `hidden` from the client.

        A vendor's logger writes whole requests at DEBUG, and knows only the vendor's own headers for secrets.
        """
        self._transport = transport
        self._hidden = hidden

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send once."""
        body = await request.aread()
        headers = {name: value for name, value in request.headers.items() if name not in _FRAMING}
        headers |= {name: value.reveal() for name, value in self._hidden.items()}
        outcome: Reply | LLMException
        try:
            outcome = await self._transport.request(
                request.method, str(request.url), headers=headers, body=body or None
            )
        except LLMException as error:
            outcome = bare(error)
        return httpx2.Response(200, extensions={_OUTCOME: outcome})


def client_on(transport: Transport, hidden: Mapping[str, Secret]) -> httpx2.AsyncClient:
    """Return what a vendor's client takes as its `http_client`; `hidden` headers go with what it sends."""
    # What our connections unpack is said here, not there: a signature holds over this header too.
    packing = {"accept-encoding": "gzip, deflate"}
    line = Line(transport, hidden)
    return httpx2.AsyncClient(transport=line, headers=packing, trust_env=False, follow_redirects=False)


def outcome_of(response: httpx2.Response) -> Reply:
    """Return what really came.

    Raises:
        LLMException: Nothing did.
    """
    outcome: Reply | LLMException = response.extensions[_OUTCOME]
    if isinstance(outcome, LLMException):
        raise outcome
    return outcome
