"""`/responses`.

Source: https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from llm.core.types import response_with
from llm.providers.serving.responses_read import read_request
from llm.providers.serving.responses_stream import ResponsesStream
from llm.providers.serving.responses_write import write_response

from .answers import answer, reply, stream
from .bodies import read_json, streams

if TYPE_CHECKING:
    from llm.core.exceptions import LLMException
    from llm.core.stream import LLMStream

    from .answers import Events, Reply, Writer
    from .inquiry import Inquiry
    from .service import Service

_PREFIX: Final = "resp_"


async def respond(service: Service, inquiry: Inquiry) -> Reply | Events:
    """Answer items, whole or in events."""
    body = read_json(await inquiry.body())
    streamed = streams(body)
    request = read_request(body)
    created = int(service.clock.wall())
    if not streamed:
        response = await answer(service, inquiry, request)
        named = response_with(response, id=_name(response.id, inquiry))
        return reply(inquiry, write_response(named, body, created=created))

    def begun(chunks: LLMStream) -> ResponsesStream:
        return ResponsesStream(id=_name(chunks.id, inquiry), model=inquiry.model or "", created=created, body=body)

    def failed(writer: Writer, error: LLMException) -> bytes:
        view = service.view
        return cast("ResponsesStream", writer).fail(view.words(error), view.wire(error).code)

    return await stream(service, inquiry, request, begun, failed)


def _name(given: str, inquiry: Inquiry) -> str:
    """Return the identifier of a response, in the form that this API's clients know."""
    if given.startswith(_PREFIX):
        return given
    return _PREFIX + (given or inquiry.request_id.decode())
