"""`/v1/responses`.

Source: https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from llm.core.types import response_with
from llm.gateway.answers import answer, send, stream
from llm.gateway.bodies import read_json, streams
from llm.gateway.faults import wire_of, words
from llm.providers.serving.responses_read import read_request
from llm.providers.serving.responses_stream import ResponsesStream
from llm.providers.serving.responses_write import write_response

if TYPE_CHECKING:
    from llm.core.exceptions import LLMException
    from llm.core.stream import LLMStream
    from llm.gateway.answers import Writer
    from llm.gateway.desk import Desk
    from llm.gateway.exchange import Exchange

_PREFIX: Final = "resp_"


async def respond(desk: Desk, exchange: Exchange) -> None:
    """Answer items, whole or in events."""
    body = read_json(await exchange.body())
    streamed = streams(body)
    request = read_request(body)
    created = int(desk.clock.wall())
    if not streamed:
        response = await answer(desk, exchange, request)
        named = response_with(response, id=_name(response.id, exchange))
        await send(exchange, write_response(named, body, created=created))
        return

    def begun(chunks: LLMStream) -> ResponsesStream:
        return ResponsesStream(id=_name(chunks.id, exchange), model=exchange.model or "", created=created, body=body)

    await stream(desk, exchange, request, begun, _failed)


def _name(given: str, exchange: Exchange) -> str:
    """Return the identifier of a response, in the form that this API's clients know."""
    if given.startswith(_PREFIX):
        return given
    return _PREFIX + (given or exchange.request_id.decode())


def _failed(writer: Writer, error: LLMException) -> bytes:
    return cast("ResponsesStream", writer).fail(words(error), wire_of(error).code)
