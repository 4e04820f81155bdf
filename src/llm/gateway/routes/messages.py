"""`/v1/messages` and `/v1/messages/count_tokens`.

Source: https://docs.claude.com/en/api/messages and https://docs.claude.com/en/api/messages-count-tokens
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.gateway.answers import answer, send, stream
from llm.gateway.bodies import read_json, streams
from llm.gateway.faults import ANTHROPIC
from llm.providers.serving.anthropic_read import read_request
from llm.providers.serving.anthropic_write import AnthropicStream, write_count, write_response

if TYPE_CHECKING:
    from llm.core.exceptions import LLMException
    from llm.core.stream import LLMStream
    from llm.gateway.answers import Writer
    from llm.gateway.desk import Desk
    from llm.gateway.exchange import Exchange


async def message(desk: Desk, exchange: Exchange) -> None:
    """Answer a conversation, whole or in events."""
    body = read_json(await exchange.body())
    streamed = streams(body)
    request = read_request(body)
    if not streamed:
        await send(exchange, write_response(await answer(desk, exchange, request)))
        return

    def begun(chunks: LLMStream) -> AnthropicStream:
        name = chunks.id or f"msg_{exchange.request_id.decode()}"
        return AnthropicStream(id=name, model=exchange.model or "", usage=chunks.usage)

    await stream(desk, exchange, request, begun, _failed)


async def count(desk: Desk, exchange: Exchange) -> None:
    """Tell how many tokens a conversation takes as a prompt, its tools included."""
    request = read_request(read_json(await exchange.body()))
    exchange.model = request.model
    tokens = await desk.asking.count(exchange.caller, request)
    await send(exchange, write_count(tokens))


def _failed(_: Writer, error: LLMException) -> bytes:
    return ANTHROPIC.event(error)
