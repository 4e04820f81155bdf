"""Whose failure it is, when several calls share one."""

from __future__ import annotations

from typing import TypeVar

from llm.core.exceptions import LLMException, LLMRateLimitError, LLMTimeoutError

_Error = TypeVar("_Error", bound=BaseException)


def another(error: _Error) -> _Error:
    """Return a copy to raise in another task: the same facts, and a traceback of its own."""
    copied = type(error).__new__(type(error), *error.args)
    copied.__dict__.update(error.__dict__)
    copied.__cause__ = error.__cause__
    return copied


def concerns_all(error: BaseException | None, *, hurried: bool) -> bool:
    """Return whether a failure would meet every call that asks the same, and not only the one that asked.

    A call's cancellation, its deadline, its user's limit and whatever broke in its own program are its own affairs.

    Args:
        error: How it failed.
        hurried: Whether the call had a deadline: then our limits may have refused it for that alone.
    """
    match error:
        case LLMTimeoutError(phase="pool" | "total"):
            return error.retryable  # an attempt's bound is `total` too, and may be tried again; a deadline may not
        case LLMRateLimitError(status=None):
            return error.scope != "user" and not hurried
        case LLMRateLimitError():
            return error.scope != "user"
        case _:
            return isinstance(error, LLMException)
