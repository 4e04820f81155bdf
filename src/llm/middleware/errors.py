"""Whose failure it is, when several calls share one."""

from __future__ import annotations

from typing import TypeVar

from llm.core.exceptions import (
    LLMConnectionError,
    LLMException,
    LLMRateLimitError,
    LLMServerError,
    LLMTimeoutError,
)

_Error = TypeVar("_Error", bound=BaseException)


def another(error: _Error) -> _Error:
    """Return a copy to raise in another task: the same facts, and a traceback of its own."""
    copied = type(error).__new__(type(error), *error.args)
    copied.__dict__.update(error.__dict__)
    copied.__cause__ = error.__cause__
    return copied


def concerns_all(error: BaseException, *, left: float | None) -> bool:
    """Return whether a failure would meet every call that asks the same, and not only the one that asked.

    A call's cancellation, its deadline, its user's limit and whatever broke in its own program are its own affairs; so
    is a failure that it could have mended, had its deadline left it the time.

    Args:
        error: How it failed.
        left: Seconds that the call had left; None where it had no deadline.
    """
    match error:
        case LLMTimeoutError(phase="pool" | "total"):
            return error.retryable  # an attempt's bound is `total` too, and may be tried again; a deadline may not
        case LLMRateLimitError(scope="user"):
            return False
        case LLMRateLimitError(status=None):  # ours; it also refuses what cannot be paid by the deadline
            return left is None
        case LLMException():
            return left is None or (error.retry_after or 0.0) < left
        case _:
            return False


def may_have_arrived(error: LLMException) -> bool:
    """Return whether the provider may have done what was asked, though nobody has the answer."""
    if isinstance(error, (LLMConnectionError, LLMTimeoutError)):
        return error.sent
    return isinstance(error, LLMServerError)
