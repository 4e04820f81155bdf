"""`/v1/embeddings`.

Source: https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import orjson

from llm.gateway.answers import answer, send_bytes
from llm.gateway.bodies import read_json
from llm.providers.serving.openai_embeddings import read_embeddings, write_embeddings
from llm.telemetry.names import OPERATION_EMBEDDINGS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from llm.core.types import LLMResponse
    from llm.gateway.desk import Desk
    from llm.gateway.exchange import Exchange

_MANY_NUMBERS: Final = 50_000  # written in ten milliseconds, in which other requests go on


async def embed(desk: Desk, exchange: Exchange) -> None:
    """Answer texts by their vectors, as numbers or base64."""
    exchange.operation = OPERATION_EMBEDDINGS
    body = read_json(await exchange.body())
    response = await answer(desk, exchange, read_embeddings(body))
    numbers = sum(map(len, response.embeddings))
    written = _write(response, body) if numbers < _MANY_NUMBERS else await asyncio.to_thread(_write, response, body)
    await send_bytes(exchange, written)


def _write(response: LLMResponse, body: Mapping[str, Any]) -> bytes:
    return orjson.dumps(write_embeddings(response, body))
