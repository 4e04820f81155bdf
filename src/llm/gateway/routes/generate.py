"""`/v1/generate`, the gateway's own and simplest way to a continuation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.gateway.faults import NATIVE
from llm.gateway.native import GeneratedStream, read_generate, write_generated
from llm.gateway.sending import send
from llm.providers.endpoints.answers import answer, reply, stream
from llm.providers.endpoints.bodies import read_json, streams

if TYPE_CHECKING:
    from llm.core.exceptions import LLMException
    from llm.gateway.desk import Desk
    from llm.gateway.exchange import Exchange
    from llm.providers.endpoints.answers import Writer


async def generate(desk: Desk, exchange: Exchange) -> None:
    """Answer a prompt by its continuation, whole or in events."""
    body = read_json(await exchange.body())
    streamed = streams(body)
    request = desk.asking.continuing(exchange.caller, read_generate(body, desk.defaults))
    if streamed:
        await send(exchange, await stream(desk, exchange, request, lambda _: GeneratedStream(), _failed))
        return
    await send(exchange, reply(exchange, write_generated(await answer(desk, exchange, request), body["prompt"])))


def _failed(_: Writer, error: LLMException) -> bytes:
    return NATIVE.event(error)
