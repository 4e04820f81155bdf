"""How a call ends before its answer: by its brake, its deadline, or the manager's closing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .call import Call, CallState
from .exceptions import LLMConnectionError, LLMException, LLMTimeoutError

if TYPE_CHECKING:
    from .types import LLMRequest


def closed(call: Call, request: LLMRequest, provider: str) -> LLMException:
    """Return the error of a call that the manager's closing ended."""
    return LLMConnectionError(
        "the manager was closed before the call had ended; give close() a longer drain",
        sent=call.sends > 0,
        retryable=False,
        provider=provider,
        model=request.model,
        key=call.key,
    )


def late(call: Call, request: LLMRequest, provider: str) -> LLMException:
    """Return the error of a call whose deadline passed."""
    waited = call.waits
    seconds = 0.0 if call.deadline is None else call.deadline - call.started
    return LLMTimeoutError(
        f"the call's {seconds:g} seconds are over{' while it waited for a key' if waited else ''}; "
        "give it a longer timeout",
        phase="pool" if waited else "total",
        sent=call.sends > 0,
        provider=provider,
        model=request.model,
        key=None if waited else _last_key(call),
    )


def _last_key(call: Call) -> str | None:
    # The lease went back before the timeout came here.
    return next((entry.detail for entry in reversed(call.log) if entry.event == CallState.PAID), None)
