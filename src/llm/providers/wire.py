"""JSON out and in, as every dialect writes and reads it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import orjson

from llm.core.exceptions import LLMInvalidRequestError, LLMServerError
from llm.core.types import LLMResponse, TokenUsage
from llm.utils.frozen import maker

from .errors import error_for
from .failure import read_failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.types import LLMRequest
    from llm.core.vendor import CachePoint


make_response = maker(LLMResponse)
"""Makes a response of its fields, in their order or by name."""

make_usage = maker(TokenUsage)
"""Makes a usage of its fields, in their order."""


def model_of(request: LLMRequest) -> str:
    """Return the request's model.

    Raises:
        LLMInvalidRequestError: It has none.
    """
    if request.model is None:
        raise LLMInvalidRequestError("model is None; name one, or call through a client, which chooses one")
    return request.model


def base64_text(data: bytes) -> str:
    """Return the data in base64."""
    return base64.b64encode(data).decode("ascii")


def data_url(data: bytes, media_type: str | None) -> str:
    """Return the data as a `data:` address."""
    return f"data:{media_type};base64,{base64_text(data)}"


def cache_control(point: CachePoint) -> dict[str, str]:
    """Return the mark that stands on a block where the vendor's prompt cache should keep all up to it."""
    return {"type": "ephemeral"} if point.ttl is None else {"type": "ephemeral", "ttl": point.ttl}


def dump(body: Mapping[str, Any]) -> bytes:
    """Return a body as JSON.

    Raises:
        LLMInvalidRequestError: Something in it has no JSON form.
    """
    try:
        return orjson.dumps(body, default=_plain)
    except TypeError as error:
        reason = str(error)
    raise LLMInvalidRequestError(
        f"the request has no JSON form: {reason}; pass whole characters in messages, and plain values in tools, "
        "tool_choice, response_format and extra"
    )


def _plain(value: object) -> object:
    if hasattr(value, "keys"):
        return dict(value)  # type: ignore[call-overload]  # a mapping is told by its keys
    raise TypeError(f"{type(value).__name__} is not JSON")


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        LLMServerError: It is none.
        LLMException: It holds the vendor's word of a failure.
    """
    try:
        answer: dict[str, Any] | None = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if type(answer) is not dict:
        raise senseless(f"{len(body)} bytes that are no JSON object" if body else "nothing")
    if answer.get("error"):
        raise error_for(200, read_failure(answer))
    return answer


def senseless(what: str) -> LLMServerError:
    """Return the error for an answer that is none; `what` says what came instead, without its content."""
    return LLMServerError(
        f"the provider's answer makes no sense: it sent {what}; try again, and if it stays, check base_url and what "
        "stands between here and there"
    )


def text_of(value: object) -> str:
    """Return a text as it is and nothing as an empty one.

    Raises:
        TypeError: It is something else.
    """
    if type(value) is str:
        return value
    if value is None:
        return ""
    raise TypeError("expected a text")


def count_of(value: object) -> int:
    """Return a number of tokens, 0 for None.

    Raises:
        TypeError: It is something else.
    """
    if type(value) is int and value >= 0:
        return value
    if value is None:
        return 0
    raise TypeError("expected a whole number, 0 or more")
