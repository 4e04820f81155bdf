"""What went wrong, as GraphQL tells it: words, the place in the document, and a code that programs go by."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

from graphql import GraphQLError, GraphQLSyntaxError

from llm.core.exceptions import LLMException
from llm.gateway.faults import words

if TYPE_CHECKING:
    from collections.abc import Iterable

PARSE_FAILED: Final = "GRAPHQL_PARSE_FAILED"
VALIDATION_FAILED: Final = "GRAPHQL_VALIDATION_FAILED"
TOO_COMPLEX: Final = "TOO_COMPLEX"
INTERNAL: Final = "INTERNAL"

_logger = logging.getLogger("llm.gateway")
_MOST_TOLD: Final = 10
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
# Where the library repeats what was sent, which may be a prompt.
_REPEATED: Final = re.compile(
    r"(?:, found:? .*|(?<=cannot represent)(?P<kind>[^:]*): .*|(?<=Unexpected )(?:Block)?String .*)", re.DOTALL
)


def code_of(error: LLMException) -> str:
    """Return the name of a failure's kind: `RATE_LIMIT` for an `LLMRateLimitError`, and so for all of them."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == LLMException.__module__)
    return _HUMP.sub("_", kind.__name__.removeprefix("LLM").removesuffix("Error")).upper()


def too_complex(message: str) -> GraphQLError:
    """Return the error of a document or of variables that are over a bound."""
    return GraphQLError(message, extensions={"code": TOO_COMPLEX})


def written(errors: Iterable[GraphQLError], request_id: str) -> list[dict[str, Any]]:
    """Return errors as they are sent; of many the first ten."""
    return [_written(error, request_id) for error, _ in zip(errors, range(_MOST_TOLD), strict=False)]


def written_failure(error: LLMException, request_id: str) -> dict[str, Any]:
    """Return a failure that belongs to no place of a document."""
    return {"message": words(error), "extensions": _facts(error, request_id)}


def _written(error: GraphQLError, request_id: str) -> dict[str, Any]:
    told: dict[str, Any] = {"message": error.message}
    if error.locations:
        told["locations"] = [place.formatted for place in error.locations]
    if error.path is not None:
        told["path"] = error.path
    cause = error.original_error
    if isinstance(cause, LLMException):
        return {**told, **written_failure(cause, request_id)}
    if cause is None or isinstance(cause, GraphQLError):
        code = PARSE_FAILED if isinstance(error, GraphQLSyntaxError) else VALIDATION_FAILED
        told["message"] = _REPEATED.sub(lambda found: found["kind"] or "", error.message)
        told["extensions"] = {"code": code, **(error.extensions or {}), "requestId": request_id}
        return told
    # The kind alone: what a bug says may hold anything.
    _logger.error("a GraphQL request failed inside: %s (request %s)", type(cause).__name__, request_id)
    told["message"] = "the gateway failed; its operator finds the request's id in the log"
    told["extensions"] = {"code": INTERNAL, "requestId": request_id}
    return told


def _facts(error: LLMException, request_id: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"code": code_of(error), "requestId": request_id}
    if error.retry_after is not None:
        facts["retryAfter"] = error.retry_after
    return facts
