"""Answers on their way to a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.core.exceptions import LLMException
from llm.providers.endpoints.answers import Events

from .logs import tell_fault

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from llm.providers.endpoints.answers import Reply
    from llm.providers.endpoints.table import Endpoint

    from .desk import Desk, Handler
    from .exchange import Exchange


def served(endpoint: Endpoint) -> Handler:
    """Return the route that answers as `endpoint` does."""

    async def handle(desk: Desk, exchange: Exchange) -> None:
        await send(exchange, await endpoint(desk, exchange))

    return handle


def send(exchange: Exchange, answer: Reply | Events) -> Awaitable[None]:
    """Send an answer whole, or its events as they come."""
    if isinstance(answer, Events):
        return _send_on(exchange, answer)
    return exchange.answer(200, answer.body, answer.headers)


async def _send_on(exchange: Exchange, answer: Events) -> None:
    try:
        await exchange.begin(200, answer.headers)
        while True:
            try:
                piece = await answer.piece()
            except Exception as error:  # noqa: BLE001 - whatever was not foreseen
                tell_fault(error, exchange)
                exchange.error = error
                piece = answer.fail(LLMException("the gateway failed in the middle of the stream; its log has more"))
            if answer.over:
                await exchange.finish(piece)
                return
            await exchange.write(piece)
    finally:
        answer.leave()
