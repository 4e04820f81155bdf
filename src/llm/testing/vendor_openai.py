"""OpenAI's side of a `MockUpstream`.

Source: https://platform.openai.com/docs/guides/rate-limits and https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm.core.call import Charge
from llm.providers.openai.body import choices_of
from llm.providers.serving import openai_read as read
from llm.providers.serving import openai_write as write
from llm.providers.serving.limits_write import duration
from llm.providers.serving.openai_embeddings import read_embeddings

from .echo import prompt_tokens
from .vendor import Failure, Route, Stamp, whole_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llm.core.types import LLMRequest, LLMResponse, StreamChunk, TokenUsage

    from .accounts import Account, Refusal

_BAD: Final = "invalid_request_error"
_FAILURES: Final = {
    "rate_limit": Failure(429, "requests", "Rate limit reached. Please slow down.", "rate_limit_exceeded"),
    "quota": Failure(
        429,
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
    ),
    "server_error": Failure(500, "server_error", "The server had an error while processing your request."),
    "bad_gateway": Failure(502, page="<html><head><title>502 Bad Gateway</title></head><body></body></html>"),
    "unavailable": Failure(503, "server_error", "The engine is currently overloaded, please try again later."),
    "overloaded": Failure(529, "server_error", "The server is currently overloaded.", "overloaded"),
    "auth": Failure(401, _BAD, "Incorrect API key provided.", "invalid_api_key"),
    "forbidden": Failure(403, _BAD, "Your project does not have access to this model.", "model_not_found"),
    "invalid": Failure(400, _BAD, "Invalid value for a parameter.", "invalid_value"),
    "context_length": Failure(
        400,
        _BAD,
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 tokens.",
        "context_length_exceeded",
    ),
    "redirect": Failure(307),
    "missing": Failure(404, _BAD, "The model does not exist or you do not have access to it.", "model_not_found"),
    "unknown_path": Failure(404, _BAD, "Unknown request URL.", "unknown_url"),
}


class OpenAIVendor:
    """Chat completions, embeddings and models; charges the larger of estimate and `max_tokens`, times `n`."""

    name = "openai"
    root = "/v1"
    public = frozenset[Route]()

    def route(self, method: str, path: str) -> Route | None:
        """As in `Vendor`."""
        match method, path.removeprefix("/v1"):
            case "POST", "/chat/completions" | "/responses":
                return "answer"
            case "POST", "/embeddings":
                return "embeddings"
            case "GET", "/models":
                return "models"
            case _:
                return None

    def key(self, headers: Mapping[str, str]) -> str | None:
        """As in `Vendor`."""
        kind, _, key = headers.get("authorization", "").partition(" ")
        return key if kind.lower() == "bearer" and key else None

    def read(self, body: Mapping[str, Any]) -> LLMRequest:
        """As in `Vendor`."""
        read.model_of(body)
        return read_embeddings(body) if "input" in body else read.read_request(body)

    def charge(self, request: LLMRequest) -> Charge:
        """As in `Vendor`."""
        estimate, most = prompt_tokens(request), (request.max_tokens or 0) * choices_of(request.extra or {})
        return Charge(estimate, most, max(estimate, most))

    def used(self, usage: TokenUsage) -> Charge:
        """As in `Vendor`."""
        return Charge(usage.input_tokens, usage.output_tokens, usage.total_tokens)

    def limit_headers(self, account: Account, stamp: Stamp) -> dict[str, str]:
        """As in `Vendor`."""
        headers: dict[str, str] = {}
        for unit in ("requests", "tokens"):
            if (rule := account.shown(unit)) is not None:
                headers[f"x-ratelimit-limit-{unit}"] = f"{rule.allowance.limit:.0f}"
                headers[f"x-ratelimit-remaining-{unit}"] = str(math.floor(rule.allowance.remaining(stamp.now)))
                headers[f"x-ratelimit-reset-{unit}"] = duration(rule.allowance.reset(stamp.now))
        return headers

    def retry_headers(self, seconds: float) -> dict[str, str]:
        """As in `Vendor`."""
        return {"retry-after": whole_seconds(seconds), "retry-after-ms": whole_seconds(seconds * 1000)}

    def failure(self, kind: str) -> Failure:
        """As in `Vendor`."""
        return _FAILURES[kind]

    def too_much(self, refusal: Refusal, model: str) -> Failure:
        """As in `Vendor`."""
        rule, seconds = refusal
        kind = "requests" if "requests" in rule.unit else "tokens"
        limit = f"{rule.name}: limit {rule.allowance.limit:.0f}"
        if math.isinf(seconds):
            return Failure(429, kind, f"Request too large for {model} on {limit}.", "rate_limit_exceeded")
        message = f"Rate limit reached for {model} on {limit}. Please try again in {duration(seconds)}."
        return Failure(429, kind, message, "rate_limit_exceeded")

    def envelope(self, failure: Failure, stamp: Stamp) -> bytes:
        """As in `Vendor`."""
        del stamp
        return orjson.dumps(write.write_error(failure.message, failure.type, failure.code))

    def error_event(self, failure: Failure, sent: bytes) -> bytes:
        """As in `Vendor`."""
        del sent
        return write.write_error_event(failure.message, failure.type, failure.code)

    def garbage_event(self, data: bytes) -> bytes:
        """As in `Vendor`."""
        return b"data: " + data + b"\n\n"

    def whole(self, response: LLMResponse, stamp: Stamp) -> bytes:
        """As in `Vendor`."""
        return orjson.dumps(write.write_response(response, created=int(stamp.wall)))

    def events(
        self, body: Mapping[str, Any], response: LLMResponse, chunks: Sequence[StreamChunk], stamp: Stamp
    ) -> list[bytes]:
        """As in `Vendor`."""
        usage = read.wants_usage(body)
        stream = write.OpenAIStream(id=response.id, model=response.model, created=int(stamp.wall), include_usage=usage)
        pieces = [stream.begin() + stream.chunk(chunks[0]), *map(stream.chunk, chunks[1:])]
        return [*filter(None, pieces), stream.end()]

    def aside(self, route: Route, body: Mapping[str, Any], names: Iterable[str], stamp: Stamp) -> bytes:
        """As in `Vendor`: the models."""
        del route, body
        return orjson.dumps(write.write_models(dict.fromkeys(names, "system"), created=int(stamp.wall)))

    def identify(self, number: int) -> dict[str, str]:
        """As in `Vendor`."""
        return {"x-request-id": f"req_{number:024x}"}

    def answer_id(self, number: int) -> str:
        """As in `Vendor`."""
        return f"chatcmpl-{number:024x}"
