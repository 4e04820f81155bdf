"""Backing off: how long to wait before the next attempt."""

from __future__ import annotations


def full_jitter(attempt: int, dice: float, *, initial: float, maximum: float) -> float:
    """Return seconds to wait before repeating attempt number `attempt`, from 1.

    The span doubles with each attempt up to `maximum`, and `dice` (0 to 1) picks a point of it, so that clients that
    failed together do not come back together.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ ("full jitter").
    """
    return dice * min(maximum, initial * 2.0 ** min(attempt - 1, 64))
