"""Anthropic's side of a `MockUpstream`.

Source: https://docs.claude.com/en/api/rate-limits and https://docs.claude.com/en/api/errors
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm.core.call import Charge
from llm.providers.serving import anthropic_read as read
from llm.providers.serving import anthropic_write as write
from llm.providers.serving.anthropic_replay import write_events
from llm.providers.serving.fields import wrong

from .echo import prompt_tokens
from .vendor import Failure, Route, Stamp, whole_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llm.core.types import LLMRequest, LLMResponse, StreamChunk, TokenUsage

    from .accounts import Account, Refusal, Rule

_BAD: Final = "invalid_request_error"
_FAILURES: Final = {
    "rate_limit": Failure(429, "rate_limit_error", "This request would exceed your organization's rate limit."),
    "quota": Failure(402, "billing_error", "Your credit balance is too low to access the API."),
    "server_error": Failure(500, "api_error", "Internal server error"),
    "bad_gateway": Failure(502, page="<html><head><title>502 Bad Gateway</title></head><body></body></html>"),
    "unavailable": Failure(503, "api_error", "Service unavailable"),
    "overloaded": Failure(529, "overloaded_error", "Overloaded"),
    "auth": Failure(401, "authentication_error", "invalid x-api-key"),
    "forbidden": Failure(403, "permission_error", "Your API key does not have permission to use this model."),
    "invalid": Failure(400, _BAD, "a field: Input should be valid"),
    "context_length": Failure(400, _BAD, "prompt is too long: 210000 tokens > 200000 maximum"),
    "redirect": Failure(307),
    "missing": Failure(404, "not_found_error", "model: not found"),
    "unknown_path": Failure(404, "not_found_error", "Not found"),
}


class AnthropicVendor:
    """Messages, token counts and models; charges input and output each."""

    name = "anthropic"
    root = ""
    public = frozenset[Route]()

    def route(self, method: str, path: str) -> Route | None:
        """As in `Vendor`."""
        match method, path.removeprefix("/v1"):
            case "POST", "/messages":
                return "answer"
            case "POST", "/messages/count_tokens":
                return "count"
            case "GET", "/models":
                return "models"
            case _:
                return None

    def key(self, headers: Mapping[str, str]) -> str | None:
        """As in `Vendor`."""
        return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ") or None

    def read(self, body: Mapping[str, Any]) -> LLMRequest:
        """As in `Vendor`."""
        request = read.read_request(body)
        if request.model is None:
            raise wrong("model", "a model's name")
        return request

    def charge(self, request: LLMRequest) -> Charge:
        """As in `Vendor`."""
        estimate, most = prompt_tokens(request), request.max_tokens or 0
        return Charge(estimate, most, estimate + most)

    def used(self, usage: TokenUsage) -> Charge:
        """As in `Vendor`; what the cache held is free."""
        fresh = usage.input_tokens - usage.cached_input_tokens
        return Charge(fresh, usage.output_tokens, fresh + usage.output_tokens)

    def limit_headers(self, account: Account, stamp: Stamp) -> dict[str, str]:
        """As in `Vendor`; tokens in thousands, and `tokens` itself is the tightest of the token limits."""
        shown = {
            "requests": account.shown("requests"),
            "input-tokens": account.shown("input_tokens"),
            "output-tokens": account.shown("output_tokens"),
        }
        tokens = [shown["input-tokens"], shown["output-tokens"], account.shown("tokens")]
        tight = [rule for rule in tokens if rule is not None]
        shown["tokens"] = min(tight, key=lambda rule: _share(rule, stamp.now), default=None)
        headers: dict[str, str] = {}
        for name, rule in shown.items():
            if rule is not None:
                headers |= _headers(name, rule, stamp)
        return headers

    def retry_headers(self, seconds: float) -> dict[str, str]:
        """As in `Vendor`."""
        return {"retry-after": whole_seconds(seconds)}

    def failure(self, kind: str) -> Failure:
        """As in `Vendor`."""
        return _FAILURES[kind]

    def too_much(self, refusal: Refusal, model: str) -> Failure:
        """As in `Vendor`."""
        limit = f"{refusal.rule.allowance.limit:.0f} {refusal.rule.name.replace('_', ' ')}"
        message = f"This request would exceed your organization's rate limit of {limit} (model: {model})."
        return Failure(429, "rate_limit_error", message)

    def envelope(self, failure: Failure, stamp: Stamp) -> bytes:
        """As in `Vendor`."""
        request_id = self.identify(stamp.number)["request-id"]
        return orjson.dumps(write.write_error(failure.message, failure.type, request_id=request_id))

    def error_event(self, failure: Failure, sent: bytes) -> bytes:
        """As in `Vendor`."""
        del sent
        return write.write_error_event(failure.message, failure.type)

    def garbage_event(self, data: bytes) -> bytes:
        """As in `Vendor`."""
        return b"event: content_block_delta\ndata: " + data + b"\n\n"

    def whole(self, response: LLMResponse, stamp: Stamp) -> bytes:
        """As in `Vendor`."""
        del stamp
        return orjson.dumps(write.write_response(response))

    def events(
        self, body: Mapping[str, Any], response: LLMResponse, chunks: Sequence[StreamChunk], stamp: Stamp
    ) -> list[bytes]:
        """As in `Vendor`."""
        del body, stamp
        if (message := write.own_message(response)) is not None:
            return _replayed(message, max(len(chunk.content) for chunk in chunks) or _PIECE)
        stream = write.AnthropicStream(id=response.id, model=response.model, usage=response.usage)
        pieces = [stream.begin() + stream.chunk(chunks[0]), *map(stream.chunk, chunks[1:])]
        return [*filter(None, pieces), stream.end()]

    def aside(self, route: Route, body: Mapping[str, Any], names: Iterable[str], stamp: Stamp) -> bytes:
        """As in `Vendor`: models and counts."""
        if route == "models":
            return orjson.dumps(write.write_models(names, created=_rfc3339(stamp.wall)))
        return orjson.dumps(write.write_count(prompt_tokens(self.read(body))))

    def identify(self, number: int) -> dict[str, str]:
        """As in `Vendor`."""
        return {"request-id": f"req_{number:024x}"}

    def answer_id(self, number: int) -> str:
        """As in `Vendor`."""
        return f"msg_{number:024x}"


_PIECE: Final = 8
"""Characters in a piece of input or thought, where no text says how many."""


def _replayed(message: Mapping[str, Any], size: int) -> list[bytes]:
    *events, delta, stop = write_events(message, size=size)
    head = 3  # the message's start, a ping, and the start of the first block, if there is one
    return [b"".join(events[:head]), *events[head:], delta + stop]


def _share(rule: Rule, now: float) -> float:
    return rule.allowance.remaining(now) / rule.allowance.limit


def _headers(name: str, rule: Rule, stamp: Stamp) -> dict[str, str]:
    limit, left = rule.allowance.limit, math.floor(rule.allowance.remaining(stamp.now))
    if name != "requests":
        left = round(left, -3)
    reset = _rfc3339(math.ceil(stamp.wall + rule.allowance.reset(stamp.now)))
    return {
        f"anthropic-ratelimit-{name}-limit": f"{limit:.0f}",
        f"anthropic-ratelimit-{name}-remaining": str(left),
        f"anthropic-ratelimit-{name}-reset": reset,
    }


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
