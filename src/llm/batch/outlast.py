"""Waiting for a thread that must not be left alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class GivenUpError(Exception):
    """What a thread did was given up, for nobody waits for it any more."""


async def outlast(ended: asyncio.Future[None], hurry: Callable[[], object]) -> None:
    """Return when it is done; a cancellation calls `hurry` and is raised only then.

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
    failure = ended.exception()
    if cancelled is not None:
        raise cancelled
    if failure is not None:
        raise failure
