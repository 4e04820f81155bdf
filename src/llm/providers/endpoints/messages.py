"""`/messages` and `/messages/count_tokens`.

Source: https://docs.claude.com/en/api/messages and https://docs.claude.com/en/api/messages-count-tokens
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.providers.serving.anthropic_read import read_request
from llm.providers.serving.anthropic_write import AnthropicStream, write_count, write_response

from .answers import answer, reply, stream
from .bodies import read_json, streams

if TYPE_CHECKING:
    from llm.core.exceptions import LLMException
    from llm.core.stream import LLMStream

    from .answers import Events, Reply, Writer
    from .inquiry import Inquiry
    from .service import Service


async def message(service: Service, inquiry: Inquiry) -> Reply | Events:
    """Answer a conversation, whole or in events."""
    body = read_json(await inquiry.body())
    streamed = streams(body)
    request = read_request(body)
    if not streamed:
        return reply(inquiry, write_response(await answer(service, inquiry, request)))

    def begun(chunks: LLMStream) -> AnthropicStream:
        name = chunks.id or f"msg_{inquiry.request_id.decode()}"
        return AnthropicStream(id=name, model=inquiry.model or "", usage=chunks.usage)

    def failed(_: Writer, error: LLMException) -> bytes:
        return service.anthropic.event(error)

    return await stream(service, inquiry, request, begun, failed)


async def count(service: Service, inquiry: Inquiry) -> Reply:
    """Tell how many tokens a conversation takes as a prompt, its tools included."""
    request = read_request(read_json(await inquiry.body()))
    inquiry.model = request.model
    return reply(inquiry, write_count(await service.asking.count(inquiry.caller, request)))
