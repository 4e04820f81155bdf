"""`/embeddings`.

Source: https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import orjson

from llm.providers.serving.openai_embeddings import read_embeddings, write_embeddings
from llm.telemetry.names import OPERATION_EMBEDDINGS

from .answers import answer, reply_bytes
from .bodies import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from llm.core.types import LLMResponse

    from .answers import Reply
    from .inquiry import Inquiry
    from .service import Service

_MANY_NUMBERS: Final = 50_000  # written in ten milliseconds, in which other requests go on


async def embed(service: Service, inquiry: Inquiry) -> Reply:
    """Answer texts by their vectors, as numbers or base64."""
    inquiry.operation = OPERATION_EMBEDDINGS
    body = read_json(await inquiry.body())
    response = await answer(service, inquiry, read_embeddings(body))
    numbers = sum(map(len, response.embeddings))
    written = _write(response, body) if numbers < _MANY_NUMBERS else await asyncio.to_thread(_write, response, body)
    return reply_bytes(inquiry, written)


def _write(response: LLMResponse, body: Mapping[str, Any]) -> bytes:
    return orjson.dumps(write_embeddings(response, body))
