"""Waiting for a thread that must not be left alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class GivenUpError(Exception):
    """What a thread did was given up, for nobody waits for it any more."""


async def outlast(ended: asyncio.Future[_T], hurry: Callable[[], object]) -> _T:
    """Return its result when it is done; a cancellation calls `hurry` and is raised only then.

    Raises:
        asyncio.CancelledError: The caller was cancelled meanwhile.
        Exception: It failed.
    """
    cancelled: asyncio.CancelledError | None = None
    while not ended.done():
        try:
            await asyncio.wait([ended])
        except asyncio.CancelledError as error:
            cancelled = error
            hurry()
    if cancelled is not None:
        ended.exception()  # nobody else asks for it
        raise cancelled
    return ended.result()
