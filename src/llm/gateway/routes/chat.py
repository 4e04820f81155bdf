"""`/v1/chat/completions`.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from llm.gateway.answers import answer, send, stream
from llm.gateway.bodies import read_json, streams
from llm.gateway.faults import OPENAI
from llm.providers.serving.openai_read import read_request, wants_usage
from llm.providers.serving.openai_write import OpenAIStream, write_response

if TYPE_CHECKING:
    from llm.core.exceptions import LLMException
    from llm.core.stream import LLMStream
    from llm.gateway.answers import Writer
    from llm.gateway.desk import Desk
    from llm.gateway.exchange import Exchange


async def complete(desk: Desk, exchange: Exchange) -> None:
    """Answer a conversation, whole or in events."""
    body = read_json(await exchange.body())
    streamed = streams(body)
    request = read_request(body)
    created = int(desk.clock.wall())
    if streamed:
        begun = partial(_begun, exchange, created, include_usage=wants_usage(body))
        await stream(desk, exchange, request, begun, _failed)
        return
    await send(exchange, write_response(await answer(desk, exchange, request), created=created))


def _begun(exchange: Exchange, created: int, chunks: LLMStream, *, include_usage: bool) -> OpenAIStream:
    name = chunks.id or f"chatcmpl-{exchange.request_id.decode()}"
    return OpenAIStream(id=name, model=exchange.model or "", created=created, include_usage=include_usage)


def _failed(_: Writer, error: LLMException) -> bytes:
    return OPENAI.event(error)
