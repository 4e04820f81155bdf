"""OpenAI's side of a `MockUpstream` at `/responses`.

Source: https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from llm.providers.serving import responses_read as read
from llm.providers.serving import responses_write as write
from llm.providers.serving.openai_read import model_of
from llm.providers.serving.responses_stream import ResponsesStream

from .vendor_openai import OpenAIVendor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm.core.types import LLMRequest, LLMResponse, StreamChunk

    from .vendor import Failure, Stamp, Vendor


def speaker(vendor: Vendor, path: str, body: Mapping[str, Any]) -> Vendor:
    """Return who answers a request: the vendor, or, where it is OpenAI and the path says so, its other interface."""
    return ResponsesVendor(body) if vendor.name == "openai" and path.endswith("/responses") else vendor


class ResponsesVendor(OpenAIVendor):
    """Answers one request in the form of the Responses API; keys, limits and failures are those of chat completions."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        """Answer the request `body`, of which a response repeats much."""
        self._body = body

    def read(self, body: Mapping[str, Any]) -> LLMRequest:
        """As in `Vendor`."""
        model_of(body)
        return read.read_request(body)

    def error_event(self, failure: Failure, sent: bytes) -> bytes:
        """As in `Vendor`."""
        return write.write_error_event(failure.message, failure.code or failure.type, number=sent.count(b"event: "))

    def whole(self, response: LLMResponse, stamp: Stamp) -> bytes:
        """As in `Vendor`."""
        return orjson.dumps(write.write_response(response, self._body, created=int(stamp.wall)))

    def events(
        self, body: Mapping[str, Any], response: LLMResponse, chunks: Sequence[StreamChunk], stamp: Stamp
    ) -> list[bytes]:
        """As in `Vendor`."""
        stream = ResponsesStream(id=response.id, model=response.model, created=int(stamp.wall), body=body)
        pieces = [stream.begin() + stream.chunk(chunks[0]), *map(stream.chunk, chunks[1:])]
        return [*filter(None, pieces), stream.end()]

    def answer_id(self, number: int) -> str:
        """As in `Vendor`."""
        return f"resp_{number:048x}"
