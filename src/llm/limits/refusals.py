"""Why a call is refused instead of waiting: the errors of the queue, each with what to do."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from llm.core.exceptions import (
    LLMCircuitOpenError,
    LLMConnectionError,
    LLMInvalidRequestError,
    LLMPoolExhaustedError,
    LLMRateLimitError,
)
from llm.core.standing import Admission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm.core.call import Ticket
    from llm.core.keys import Slot

    from .base import Binding, Limit
    from .breaker import Breaker


def told(bound: Binding, slot: Slot | None = None) -> str:
    """Return what is waited for, in words; `slot` is the one whose key is meant."""
    of_key = "" if slot is None else f" of the key {slot.key.fingerprint}"
    if bound.limit is None:
        return f"the pause{of_key} that the provider asked for" if bound.seconds > 0 else "its turn"
    level = bound.limit.level
    return bound.limit.name + (of_key if level == "key" and of_key else f" of the {level}")


def no_such_model(provider: str, model: str, models: Sequence[str]) -> LLMInvalidRequestError:
    """No slot has the model."""
    return LLMInvalidRequestError(
        f"no key of {provider!r} has the model {model!r}; there are: {', '.join(models)}. Name one of these, or add it "
        "under `models:`",
        provider=provider,
        model=model,
    )


def too_large(provider: str, ticket: Ticket, limit: Limit) -> LLMRateLimitError:
    """The request exceeds a limit by itself."""
    amount = getattr(ticket.charge, limit.unit)
    unit = "US dollars" if limit.unit == "cost" else limit.unit.replace("_", " ")
    return LLMRateLimitError(
        f"the request needs {amount:g} {unit}, and {limit.name} of the {limit.level} is "
        f"{limit.capacity:g}: it can never fit. Shorten it, lower max_tokens, or raise the limit",
        scope=limit.level,
        limit=limit.name,
        retryable=False,
        provider=provider,
        model=ticket.model,
    )


def used_up(provider: str, ticket: Ticket, bound: Binding) -> LLMRateLimitError:
    """A limit per day or in dollars has no room."""
    keys = "give more keys, " if bound.limit is None or bound.limit.level == "key" else ""
    return LLMRateLimitError(
        f"{told(bound)} is used up; it has room for this call again in {ceil(bound.seconds)} seconds. Wait so long, "
        f"{keys}or raise the limit",
        scope=bound.limit.level if bound.limit is not None else "key",
        limit=bound.limit.name if bound.limit is not None else None,
        retry_after=bound.seconds,
        retryable=False,
        provider=provider,
        model=ticket.model,
    )


def too_late(provider: str, ticket: Ticket, bound: Binding) -> LLMRateLimitError:
    """The call's deadline is sooner than its limits allow."""
    return LLMRateLimitError(
        f"{told(bound)} asks for {bound.seconds:.1f} seconds, and the call's deadline is sooner; give it a longer "
        "timeout, more keys or a higher limit",
        scope=bound.limit.level if bound.limit is not None else "key",
        limit=bound.limit.name if bound.limit is not None else None,
        retry_after=bound.seconds,
        retryable=False,
        provider=provider,
        model=ticket.model,
    )


def held_too_long(provider: str, ticket: Ticket, bound: Binding, most: float) -> LLMRateLimitError:
    """A limit of the user's own holds the call for longer than it may."""
    seconds = bound.seconds if bound.timed else 1.0  # when one ends that has a place nobody knows
    return LLMRateLimitError(
        f"{told(bound)} has room for this call again in {ceil(seconds)} seconds, and may hold it for {most:g} "
        "(gateway.max_user_wait). Try again then, or raise one of the two",
        scope="user",
        limit=bound.limit.name if bound.limit is not None else None,
        retry_after=seconds,
        retryable=False,
        provider=provider,
        model=ticket.model,
    )


def too_many_waiting(provider: str, ticket: Ticket, waiting: int) -> LLMPoolExhaustedError:
    """The queue is full."""
    return LLMPoolExhaustedError(
        f"{waiting} calls wait for {provider!r} already (pool.max_waiting); send fewer at once, or raise it",
        provider=provider,
        model=ticket.model,
    )


def waited_too_long(provider: str, ticket: Ticket, bound: Binding, seconds: float) -> LLMPoolExhaustedError:
    """`pool.acquire_timeout` passed."""
    return LLMPoolExhaustedError(
        f"no key of {provider!r} was free for {seconds:g} seconds (pool.acquire_timeout); it waited for {told(bound)}. "
        "Send fewer at once, give more keys, or raise one of the two",
        provider=provider,
        model=ticket.model,
    )


def store_lost(provider: str, ticket: Ticket) -> LLMConnectionError:
    """The store of the limits was lost for too long."""
    return LLMConnectionError(
        "the store that counts the limits of all processes (limits.store) cannot be reached, and no call is sent "
        "without it (limits.on_store_loss: fail_closed). Bring it back, correct limits.url, or choose fail_open or "
        "share",
        sent=False,
        provider=provider,
        model=ticket.model,
    )


def circuit_open(provider: str, breaker: Breaker, now: float) -> LLMCircuitOpenError:
    """The breaker lets no attempt through now."""
    failures, attempts = breaker.failures, breaker.attempts
    slow = "" if breaker.policy.slow_call is None else f" or took more than {breaker.policy.slow_call:g} seconds"
    since = ", and so did an attempt since to see whether it serves again" if breaker.again else ""
    seconds = breaker.wait(now)
    return LLMCircuitOpenError(
        f"{failures / attempts:.0%} of {attempts} attempts with {breaker.model!r} of {provider!r} failed{slow} within "
        f"{breaker.policy.window:g} seconds{since}; no more are made for {seconds:.1f} seconds (circuit_breaker). Wait "
        "so long, name another model or provider, or configure a fallback",
        retry_after=seconds,
        provider=provider,
        model=breaker.model,
    )


def seen_open(seconds: float, now: float) -> Admission:
    """The same to who only asks: the breaker lets no attempt through for so many seconds."""
    return Admission(
        admitted=False, wait_seconds=seconds, level="provider", limit="circuit_breaker", saturation=1.0, as_of=now
    )
