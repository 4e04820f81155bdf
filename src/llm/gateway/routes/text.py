"""`/v1/completions`: continuations of prompts, as OpenAI's older route tells them.

Source: https://platform.openai.com/docs/api-reference/completions/create
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.gateway.answers import answers, send, stream
from llm.gateway.bodies import read_json, streams
from llm.gateway.faults import OPENAI
from llm.providers.serving.fields import wrong
from llm.providers.serving.openai_read import wants_usage
from llm.providers.serving.openai_text import TextStream, read_prompts, write_texts

if TYPE_CHECKING:
    from llm.core.exceptions import LLMException
    from llm.core.stream import LLMStream
    from llm.gateway.answers import Writer
    from llm.gateway.desk import Desk
    from llm.gateway.exchange import Exchange


async def complete(desk: Desk, exchange: Exchange) -> None:
    """Answer one prompt or several whole, or one in events."""
    body = read_json(await exchange.body())
    streamed = streams(body)
    prompts, read = read_prompts(body)
    requests = [desk.asking.continuing(exchange.caller, request) for request in read]
    echoed = prompts if body.get("echo") else [""] * len(prompts)
    created = int(desk.clock.wall())
    if not streamed:
        await send(exchange, write_texts(await answers(desk, exchange, requests), echoed, created=created))
        return
    if len(requests) > 1:
        raise wrong("prompt", "one text where stream is true")

    def begun(chunks: LLMStream) -> TextStream:
        name = chunks.id or f"cmpl-{exchange.request_id.decode()}"
        usage = wants_usage(body)
        return TextStream(id=name, model=exchange.model or "", created=created, include_usage=usage, echoed=echoed[0])

    await stream(desk, exchange, requests[0], begun, _failed)


def _failed(_: Writer, error: LLMException) -> bytes:
    return OPENAI.event(error)
