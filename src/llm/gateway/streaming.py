"""An answer in pieces, and what its exchange keeps of it, whatever the pieces are sent as."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from llm.core.stream import LLMStream
    from llm.core.types import LLMRequest

    from .desk import Desk
    from .exchange import Exchange


@asynccontextmanager
async def streaming(desk: Desk, exchange: Exchange, request: LLMRequest) -> AsyncGenerator[LLMStream]:
    """Ask for a stream in the name of an exchange's caller, and keep on the exchange what becomes of it.

    Args:
        desk: What routes work with.
        exchange: The client's request, or its operation on a socket.
        request: What it asks; given away.

    Raises:
        LLMException: The call failed before its first chunk.
    """
    exchange.model = request.model
    began = desk.clock.now()
    chunks = desk.asking.stream(exchange.caller, request)
    try:
        await chunks.begin()
        exchange.stream, exchange.call, exchange.first = chunks, request.call, desk.clock.now() - began
        exchange.model, exchange.provider = chunks.model or request.model, chunks.provider
        exchange.cached = request.call is not None and request.call.sends == 0
        yield chunks
    finally:
        exchange.stream, exchange.call = None, request.call or exchange.call
        exchange.usage, exchange.generating = chunks.usage, desk.clock.now() - began
        chunks.leave()
