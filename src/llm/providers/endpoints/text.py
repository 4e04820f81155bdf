"""`/completions`: continuations of prompts, as OpenAI's older route tells them.

Source: https://platform.openai.com/docs/api-reference/completions/create
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.providers.serving.fields import wrong
from llm.providers.serving.openai_read import wants_usage
from llm.providers.serving.openai_text import TextStream, read_prompts, write_texts

from .answers import answers, reply, stream
from .bodies import read_json, streams

if TYPE_CHECKING:
    from llm.core.exceptions import LLMException
    from llm.core.stream import LLMStream

    from .answers import Events, Reply, Writer
    from .inquiry import Inquiry
    from .service import Service


async def complete(service: Service, inquiry: Inquiry) -> Reply | Events:
    """Answer one prompt or several whole, or one in events."""
    body = read_json(await inquiry.body())
    streamed = streams(body)
    prompts, read = read_prompts(body)
    requests = [service.asking.continuing(inquiry.caller, request) for request in read]
    echoed = prompts if body.get("echo") else [""] * len(prompts)
    created = int(service.clock.wall())
    if not streamed:
        return reply(inquiry, write_texts(await answers(service, inquiry, requests), echoed, created=created))
    if len(requests) > 1:
        raise wrong("prompt", "one text where stream is true")
    usage = wants_usage(body)

    def begun(chunks: LLMStream) -> TextStream:
        name = chunks.id or f"cmpl-{inquiry.request_id.decode()}"
        return TextStream(id=name, model=inquiry.model or "", created=created, include_usage=usage, echoed=echoed[0])

    def failed(_: Writer, error: LLMException) -> bytes:
        return service.openai.event(error)

    return await stream(service, inquiry, requests[0], begun, failed)
