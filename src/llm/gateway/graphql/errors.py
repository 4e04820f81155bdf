"""What went wrong, as GraphQL tells it: words, the place in the document, and a code that programs go by."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

from graphql import GraphQLError, GraphQLSyntaxError

from llm.core.exceptions import LLMException
from llm.gateway.codes import INTERNAL, written_failure

if TYPE_CHECKING:
    from collections.abc import Iterable

PARSE_FAILED: Final = "GRAPHQL_PARSE_FAILED"
VALIDATION_FAILED: Final = "GRAPHQL_VALIDATION_FAILED"
TOO_COMPLEX: Final = "TOO_COMPLEX"

_MOST_TOLD: Final = 10
# Where the library repeats what was sent, which may be a prompt.
_REPEATED: Final = re.compile(
    r", found:? .*|(?<=cannot represent)(?P<kind>[^:]*): .*|(?<=Unexpected )(?:Block)?String .*", re.DOTALL
)
_logger = logging.getLogger("llm.gateway")


def too_complex(message: str) -> GraphQLError:
    """Return the error of a document or of variables that are over a bound."""
    return GraphQLError(message, extensions={"code": TOO_COMPLEX})


def written(errors: Iterable[GraphQLError], request_id: str) -> list[dict[str, Any]]:
    """Return errors as they are sent; of many the first ten."""
    return [_written(error, request_id) for error, _ in zip(errors, range(_MOST_TOLD), strict=False)]


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
    _logger.error("a GraphQL operation failed by a fault of the gateway's own: %s", type(cause).__name__)
    told["message"] = "the gateway failed; its log has more under this request's id"
    told["extensions"] = {"code": INTERNAL, "requestId": request_id}
    return told
