"""The bodies of the gateway's own routes.

{"prompt", "max_length", "temperature", "stream", …} → {"generated_text", "prompt", "model", …}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from llm.core.messages import Message, MessageRole
from llm.core.types import LLMRequest, TokenUsage
from llm.providers.serving.fields import request_fields, wrong

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.types import FinishReason, LLMResponse, StreamChunk

_FIELDS: Final = {
    "model": "model",
    "max_length": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "stop": "stop",
    "seed": "seed",
    "stream": "stream",
}
_READ: Final = {*_FIELDS, "prompt"}


class Defaults(NamedTuple):
    """What `/v1/generate` takes where a body says nothing.

    Attributes:
        max_length: Most new tokens; None: as many as the model has.
        temperature: 0 to 2; None: the provider's.
    """

    max_length: int | None = None
    temperature: float | None = None


def read_generate(body: Mapping[str, Any], defaults: Defaults) -> LLMRequest:
    """Return the request of a `/v1/generate` body; fields without a name of ours go to the provider as they are.

    Raises:
        LLMInvalidRequestError: A field is missing or wrong; says which and what was expected.
    """
    prompt: object = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise wrong("prompt", "text that is not empty")
    fields = request_fields(body, _FIELDS)
    most: object = fields.setdefault("max_tokens", defaults.max_length)
    if most is not None and not (type(most) is int and most > 0):
        raise wrong("max_length", "a whole number of 1 or more, the most new tokens")
    fields.setdefault("temperature", defaults.temperature)
    extra = {name: value for name, value in body.items() if name not in _READ}
    return LLMRequest((Message(MessageRole.USER, prompt),), extra=extra or None, **fields)


def write_generated(response: LLMResponse, prompt: str) -> dict[str, Any]:
    """Return the body that answers `/v1/generate`; the text is the continuation alone."""
    return {
        "generated_text": response.content,
        "prompt": prompt,
        "model": response.model,
        "provider": response.provider,
        "finish_reason": response.finish_reason or "stop",
        "usage": write_usage(response.usage),
        "cached": response.cached,
    }


def write_usage(usage: TokenUsage) -> dict[str, int]:
    """Return tokens as the gateway's own routes tell them."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


class GeneratedStream:
    """Writes a continuation as server-sent events: `{"text"}` …, then `{"done": true, "finish_reason", "usage"}`."""

    def __init__(self) -> None:
        """Start an answer."""
        self._usage: TokenUsage | None = None
        self._finish: FinishReason | None = None

    def begin(self) -> bytes:
        """Return what comes before the first chunk: nothing."""
        return b""

    def chunk(self, chunk: StreamChunk) -> bytes:
        """Return the event of a chunk; none for one without text."""
        self._usage = chunk.usage or self._usage
        if chunk.index:  # of further choices, which this route does not tell
            return b""
        self._finish = chunk.finish_reason or self._finish
        return _event({"text": chunk.content}) if chunk.content else b""

    def end(self) -> bytes:
        """Return what closes the answer."""
        usage = write_usage(self._usage or TokenUsage())
        return _event({"done": True, "finish_reason": self._finish or "stop", "usage": usage})


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"
