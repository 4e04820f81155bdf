"""`/chat/completions`.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.providers.serving.openai_read import read_request, wants_usage
from llm.providers.serving.openai_write import OpenAIStream, write_response

from .answers import answer, reply, stream
from .bodies import read_json, streams

if TYPE_CHECKING:
    from llm.core.exceptions import LLMException
    from llm.core.stream import LLMStream

    from .answers import Events, Reply, Writer
    from .inquiry import Inquiry
    from .service import Service


async def complete(service: Service, inquiry: Inquiry) -> Reply | Events:
    """Answer a conversation, whole or in events."""
    body = read_json(await inquiry.body())
    streamed = streams(body)
    request = read_request(body)
    created = int(service.clock.wall())
    if not streamed:
        return reply(inquiry, write_response(await answer(service, inquiry, request), created=created))
    usage = wants_usage(body)

    def begun(chunks: LLMStream) -> OpenAIStream:
        name = chunks.id or f"chatcmpl-{inquiry.request_id.decode()}"
        return OpenAIStream(id=name, model=inquiry.model or "", created=created, include_usage=usage)

    def failed(_: Writer, error: LLMException) -> bytes:
        return service.openai.event(error)

    return await stream(service, inquiry, request, begun, failed)
