"""The way back to an event loop, for what may be called in another thread: finalizers above all."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable


def way_back() -> Callable[[Callable[[], object]], bool]:
    """Return a function that calls what it is given in the loop that runs now.

    It calls at once inside of that loop, and soon from anywhere else. Where the loop is closed it calls nothing and
    returns False.
    """
    return partial(_call_in, asyncio.get_running_loop())


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> bool:
    if asyncio._get_running_loop() is loop:
        callback()
        return True
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:  # it is closed
        return False
    return True


def call_if_there(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    """Call a method of an object that may be gone by now."""
    alive = method()
    if alive is not None:
        alive()
