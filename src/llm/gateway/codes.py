"""Kinds of failure as GraphQL's clients know them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from llm.core.exceptions import LLMException

from .faults import VIEW

if TYPE_CHECKING:
    from collections.abc import Mapping

INTERNAL: Final = "INTERNAL"
SWITCHED_OFF: Final = "GraphQL is switched off here (features.graphql)"
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


def code_of(error: LLMException) -> str:
    """Return the name of a failure's kind: `RATE_LIMIT` for an `LLMRateLimitError`, and so for all of them."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == LLMException.__module__)
    if kind is LLMException:  # whatever was not foreseen
        return INTERNAL
    return _HUMP.sub("_", kind.__name__.removeprefix("LLM").removesuffix("Error")).upper()


def written_failure(error: LLMException, request_id: str) -> Mapping[str, Any]:
    """Return a failure as an entry of GraphQL's `errors`."""
    facts: dict[str, Any] = {"code": code_of(error), "requestId": request_id}
    if error.retry_after is not None:
        facts["retryAfter"] = error.retry_after
    return {"message": VIEW.words(error), "extensions": facts}
