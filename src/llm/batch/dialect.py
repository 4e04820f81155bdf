"""A row's body → our request, and what became of it → a line of OpenAI's output and error files.

Source: https://platform.openai.com/docs/api-reference/batch/request-output
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, cast, overload

import orjson

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.types import LLMResponse, request_with
from llm.providers.errors import wire_for
from llm.providers.serving import openai_embeddings, openai_read, openai_write, responses_read, responses_write

from .values import CHAT, EMBEDDINGS, BadRow, Row

if TYPE_CHECKING:
    from llm.core.exceptions import LLMException
    from llm.core.types import EmbeddingResponse, LLMRequest

_OK: Final = 200
_FAILURES: Final = 400
_FORBIDDEN: Final = 403
_SERVERS: Final = 500


def request_of(row: Row, default_model: str | None = None) -> LLMRequest:
    """Return the request of a row; without a model of its own it has `default_model`, and None is the provider's.

    Raises:
        LLMInvalidRequestError: A field of the body is missing or wrong; names it and what is expected.
    """
    body = row.body
    if body.get("stream") not in (None, False):
        raise LLMInvalidRequestError("stream: a row of a batch is answered whole; leave it out", status=_FAILURES)
    if body.get("model") is None and default_model is not None:
        body = {**body, "model": default_model}
    if row.url == CHAT:
        return openai_read.read_request(body)
    if row.url == EMBEDDINGS:
        return _embeddings(body)
    return responses_read.read_request(body)


def _embeddings(body: Mapping[str, Any]) -> LLMRequest:
    if body.get("model") is not None:
        return openai_embeddings.read_embeddings(body)
    return request_with(openai_embeddings.read_embeddings({**body, "model": "any"}), model=None)


def answer_line(row: Row, response: LLMResponse | EmbeddingResponse, *, created: int) -> bytes:
    """Return the line of an answered row, with its newline; `created` in seconds since 1970."""
    name = _name(row)
    told = response.id if isinstance(response, LLMResponse) else ""
    answer = {"status_code": _OK, "request_id": told or name, "body": _body(row, response, created)}
    return _line({"id": name, "custom_id": row.custom_id, "response": answer, "error": None})


def _body(row: Row, response: LLMResponse | EmbeddingResponse, created: int) -> dict[str, Any]:
    if row.url == EMBEDDINGS or not isinstance(response, LLMResponse):
        return openai_embeddings.write_embeddings(response, row.body)
    if row.url == CHAT:
        return openai_write.write_response(response, created=created)
    return responses_write.write_response(response, row.body, created=created)


@overload
def error_line(row: BadRow) -> bytes: ...
@overload
def error_line(row: Row, error: LLMException) -> bytes: ...
def error_line(row: Row | BadRow, error: LLMException | None = None) -> bytes:
    """Return the line of a row that has no answer, with its newline.

    What a provider refused has a `response` with its status and an error's body; any other failure has an `error`
    instead, a bad row's with its `line` in the input, or None.
    """
    name = _name(row)
    if isinstance(row, BadRow):
        said = {"response": None, "error": {"code": row.code, "message": row.message, "line": row.line}}
    else:
        said = _failure(name, cast("LLMException", error))
    return _line({"id": name, "custom_id": row.custom_id, **said})


def coded_line(row: Row, code: str, message: str) -> bytes:
    """Return the line of a row that ended without an answer, for a reason that has a code and no exception."""
    return _line(
        {
            "id": _name(row),
            "custom_id": row.custom_id,
            "response": None,
            "error": {"code": code, "message": message},
        }
    )


def _failure(name: str, error: LLMException) -> dict[str, Any]:
    wire = wire_for(error)
    if not error.attempts or error.status is None:
        return {"response": None, "error": {"code": wire.code or wire.type, "message": str(error)}}
    status = error.status if error.status >= _FAILURES else wire.status
    body = openai_write.write_error(str(error), wire.type, wire.code)
    answer = {"status_code": status, "request_id": error.request_id or name, "body": body}
    return {"response": answer, "error": None}


def _name(row: Row | BadRow) -> str:
    """Return the id of a row's line: the same in every run."""
    known = f"line {row.line}" if row.custom_id is None else row.custom_id
    return "batch_req_" + blake2b(known.encode(errors="replace"), digest_size=16).hexdigest()


def _line(fields: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields) + b"\n"
    except TypeError:  # half a character, or a number of more than 64 bits; an answer that was paid is not lost for it
        return json.dumps(fields).encode() + b"\n"


_MAY_PASS: Final = frozenset({401, 402, 408, 409, 425, 429})
"""Statuses below 500 that tell of the key, the credit or the moment, and not of the request."""

_PASSING: Final = frozenset({
    "server_error", "overloaded", "timeout", "connection_error", "stream_interrupted", "rate_limit_exceeded",
    "rate_limit_error", "insufficient_quota", "batch_expired", "batch_cancelled",
})  # fmt: skip


_UNSENT: Final = frozenset({"invalid_request_error", "model_not_found"})
"""Codes of failures before anything was sent: to ask again costs nothing, and the configuration may be another now."""


def may_pass(line: Mapping[str, Any]) -> bool:
    """Return whether the failure that a line tells may be gone when the row is asked again.

    Failures of servers and networks, time-outs, and limits may, and those of a row that was never sent; a request or a
    content that the provider refused or an answer of the wrong form stays, as does a failure that this does not know.
    An answer is none.
    """
    response, error = _object(line.get("response")), _object(line.get("error"))
    status: object = response.get("status_code")
    if isinstance(status, int) and status >= _FAILURES:
        return status >= _SERVERS or status in _MAY_PASS or (status == _FORBIDDEN and _names_model(response))
    code: object = error.get("code")
    return isinstance(code, str) and (code in _PASSING or code in _UNSENT)


def _names_model(response: Mapping[str, Any]) -> bool:
    """Return whether it is the model that is refused, and not the request: the account may get it any day."""
    error = _object(_object(response.get("body")).get("error"))
    return error.get("code") == "model_not_found"


def _object(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
