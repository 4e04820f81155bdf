"""What a row came to: the line that is written, and what is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from .dialect import answer_line, error_line
from .engine import kind_of
from .summary import was_cached
from .values import BadRow, Outcome

if TYPE_CHECKING:
    from llm.core.exceptions import LLMException

    from .values import ResponseWrapper, Row


def outcome_of(row: Row | BadRow, wrapper: ResponseWrapper, *, created: int) -> Outcome:
    """Return what a row came to; `created` in seconds since 1970."""
    response = wrapper.response
    if isinstance(row, BadRow):
        return Outcome(row.order, error_line(row), row.code)
    if response is None:
        error = cast("LLMException", wrapper.error)
        return Outcome(row.order, error_line(row, error), kind_of(row, wrapper))
    line = answer_line(row, response, created=created)
    return Outcome(row.order, line, None, response.usage, response.cost, was_cached(response))
