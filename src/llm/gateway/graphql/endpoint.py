"""`POST /graphql`.

Source: https://graphql.github.io/graphql-over-http/draft/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from llm.core.exceptions import LLMInvalidRequestError
from llm.providers.endpoints.bodies import read_json
from llm.providers.endpoints.inquiry import JSON

if TYPE_CHECKING:
    from llm.gateway.desk import Desk
    from llm.gateway.exchange import Exchange
    from llm.providers.endpoints.inquiry import Header

    from .operations import Operations

_GRAPHQL: Final = b"application/graphql-response+json"


async def respond(operations: Operations, desk: Desk, exchange: Exchange) -> None:
    """Answer one query or mutation.

    A client that takes `application/graphql-response+json` learns from the status whether the operation ran; any other
    gets a 200 with what was wrong in the body, as GraphQL over HTTP has it.

    Raises:
        LLMInvalidRequestError: The body is no operation.
    """
    kind, _, _ = (exchange.header(b"content-type") or b"").partition(b";")
    if kind.strip().lower() != b"application/json":
        # A page of another site can send any other kind without asking first.
        raise LLMInvalidRequestError("the header content-type: expected application/json", status=415)
    result = await operations.whole(desk, exchange, read_json(await exchange.body()))
    exact = _GRAPHQL in (exchange.header(b"accept") or b"").lower()
    header: Header = (b"content-type", _GRAPHQL + b"; charset=utf-8") if exact else JSON
    await exchange.answer(200 if result.ran or not exact else 400, orjson.dumps(result.payload), (header,))
