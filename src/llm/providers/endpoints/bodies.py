"""The JSON of a request's body, with errors that say what is wrong and nothing of what it says."""

from __future__ import annotations

from typing import Any, cast

import orjson

from llm.core.exceptions import LLMInvalidRequestError

from .depth import check_depth


def read_json(body: bytes) -> dict[str, Any]:
    """Return the object that a body is.

    Raises:
        LLMInvalidRequestError: It is empty, no JSON, no UTF-8, nested too deep, or no object.
    """
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _no_json(body, error) from None
    if not isinstance(value, dict):
        raise LLMInvalidRequestError("body: expected a JSON object", status=400)
    read = cast("dict[str, Any]", value)
    check_depth(read, body)
    return read


def _no_json(body: bytes, error: orjson.JSONDecodeError) -> LLMInvalidRequestError:
    if not body.strip():
        return LLMInvalidRequestError("body: expected a JSON object; it is empty", status=400)
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        where = f"byte {wrong.start} is no UTF-8"
    else:
        where = f"line {error.lineno}, column {error.colno} is none"
    return LLMInvalidRequestError(f"body: expected JSON; {where}", status=400)


def streams(body: dict[str, Any]) -> bool:
    """Return whether a body asks for a stream.

    Raises:
        LLMInvalidRequestError: `stream` is no truth value.
    """
    asked: object = body.get("stream")
    if asked is not None and not isinstance(asked, bool):
        raise LLMInvalidRequestError("stream: expected true or false", status=400)
    return asked is True
