"""OpenRouter's side of a `MockUpstream`: OpenAI's, with a list of what models take, costs, and errors of its own form.

Source: https://openrouter.ai/docs/api-reference/overview, https://openrouter.ai/docs/guides/overview/models and
https://openrouter.ai/docs/api/reference/errors-and-debugging
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm.providers.serving import openai_write as write

from .vendor import Failure, Route, Stamp
from .vendor_openai import OpenAIVendor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llm.core.types import LLMResponse, StreamChunk

    from .accounts import Account

INPUT_PRICE: Final = 1e-6
OUTPUT_PRICE: Final = 2e-6
"""US dollars per token, of every model, where the answer has no cost of its own."""

PARAMETERS: Final = (
    "frequency_penalty", "include_reasoning", "logprobs", "max_tokens", "presence_penalty", "reasoning",
    "response_format", "seed", "stop", "structured_outputs", "temperature", "tool_choice", "tools", "top_logprobs",
    "top_p",
)  # fmt: skip
"""What every model takes."""

_FAILURES: Final = {
    "quota": Failure(402, message="Insufficient credits. Add more credits and retry the request."),
    "unavailable": Failure(503, message="No allowed providers are available for the selected model."),
    "overloaded": Failure(503, message="The providers of this model are overloaded."),
}


class OpenRouterVendor(OpenAIVendor):
    """Chat completions at `/api/v1`; the list of models is for everybody, `/key` tells whether a key is known."""

    name = "openrouter"
    root = "/api/v1"
    public = frozenset[Route]({"models"})

    def route(self, method: str, path: str) -> Route | None:
        """As in `Vendor`."""
        path = path.removeprefix("/api")
        return "key" if (method, path) == ("GET", "/v1/key") else super().route(method, path)

    def limit_headers(self, account: Account, stamp: Stamp) -> dict[str, str]:
        """As in `Vendor`."""
        if (rule := account.shown("requests")) is None:
            return {}
        return {
            "x-ratelimit-limit": f"{rule.allowance.limit:.0f}",
            "x-ratelimit-remaining": str(math.floor(rule.allowance.remaining(stamp.now))),
            "x-ratelimit-reset": str(math.ceil((stamp.wall + rule.allowance.reset(stamp.now)) * 1000)),
        }

    def failure(self, kind: str) -> Failure:
        """As in `Vendor`."""
        return _FAILURES.get(kind) or super().failure(kind)

    def envelope(self, failure: Failure, stamp: Stamp) -> bytes:
        """As in `Vendor`."""
        del stamp
        return orjson.dumps(_error(failure))

    def error_event(self, failure: Failure, sent: bytes) -> bytes:
        """As in `Vendor`."""
        del sent
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
        return b"data: " + orjson.dumps({**_error(failure), "choices": [choice]}) + b"\n\n"

    def whole(self, response: LLMResponse, stamp: Stamp) -> bytes:
        """As in `Vendor`."""
        body = write.write_response(response, created=int(stamp.wall))
        return orjson.dumps({**body, "provider": "Mock", "usage": _usage(response)})

    def events(
        self, body: Mapping[str, Any], response: LLMResponse, chunks: Sequence[StreamChunk], stamp: Stamp
    ) -> list[bytes]:
        """As in `Vendor`: with a comment before the first piece, and always with the usage."""
        del body
        first, *rest, end = super().events({}, response, chunks, stamp)
        told: dict[str, Any] = {"id": response.id, "model": response.model, "choices": [], "usage": _usage(response)}
        usage = b"data: " + orjson.dumps(told) + b"\n\n"
        return [b": OPENROUTER PROCESSING\n\n" + first, *rest, end.removesuffix(write.DONE) + usage + write.DONE]

    def aside(self, route: Route, body: Mapping[str, Any], names: Iterable[str], stamp: Stamp) -> bytes:
        """As in `Vendor`."""
        if route == "key":
            return orjson.dumps({"data": {"label": "mock", "usage": 0, "limit": None, "limit_remaining": None}})
        if route == "models":
            return orjson.dumps({"data": [_model(name, stamp) for name in names]})
        return super().aside(route, body, names, stamp)

    def answer_id(self, number: int) -> str:
        """As in `Vendor`."""
        return f"gen-{number:024x}"


def _error(failure: Failure) -> dict[str, Any]:
    return {"error": {"code": failure.status, "message": failure.message}}


def _usage(response: LLMResponse) -> dict[str, Any]:
    usage = response.usage
    cost = usage.input_tokens * INPUT_PRICE + usage.output_tokens * OUTPUT_PRICE
    return {**write.write_usage(usage), "cost": cost if response.cost is None else response.cost}


def _model(name: str, stamp: Stamp) -> dict[str, Any]:
    return {
        "id": name,
        "canonical_slug": name,
        "name": name,
        "created": int(stamp.wall),
        "context_length": 131072,
        "architecture": {"input_modalities": ["text", "image", "file", "audio"], "output_modalities": ["text"]},
        "pricing": {"prompt": f"{INPUT_PRICE:f}", "completion": f"{OUTPUT_PRICE:f}"},
        "supported_parameters": list(PARAMETERS),
    }
