"""The one manager of the process: one per event loop that is alive, made once however many tasks ask together."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from llm.core.exceptions import LLMConfigurationError, LLMException
from llm.core.manager import LLMManager, Opening
from llm.core.sealed import SealedSource

if TYPE_CHECKING:
    from llm.core.sealed import ConfigSource

_managers: dict[asyncio.AbstractEventLoop, asyncio.Task[LLMManager]] = {}
_inherited: list[object] = []


async def get_llm_manager(config: ConfigSource = None) -> LLMManager:
    """Return the manager of this process and event loop; the first call makes it.

    Managers of several loops that hold the same key share its limits. A forked child and a new event loop get a fresh
    one.

    Args:
        config: A path, a mapping, an `LLMConfig`, or None for `$LLM_CONFIG`, `config/llm.yaml`, `llm.yaml` and the
            environment, in this order.

    Raises:
        LLMConfigurationError: The configuration is wrong, or another one than the manager was made with.
    """
    source = None if config is None else SealedSource(config)
    del config
    loop = asyncio.get_running_loop()
    task = _managers.get(loop)
    if task is None or _is_over(task):
        _forget_closed_loops()
        task = _managers[loop] = loop.create_task(_open(source or SealedSource(None)))
        task.add_done_callback(_failure_seen)
        # Whoever asks may be cancelled; the others still get theirs.
        return await asyncio.shield(task)
    manager = await asyncio.shield(task)
    if source is not None:
        await _check_same(manager, source)
    return manager


async def close_llm_manager() -> None:
    """Close the manager of this loop and forget it; the next `get_llm_manager` makes a new one."""
    task = _managers.pop(asyncio.get_running_loop(), None)
    if task is None:
        return
    try:
        manager = await asyncio.shield(task)
    except LLMException:  # who asked for it was told; there is nothing to close
        return
    await manager.close()


async def _open(source: SealedSource) -> LLMManager:
    return await Opening(source)


def _is_over(task: asyncio.Task[LLMManager]) -> bool:
    if not task.done():
        return False
    return task.cancelled() or task.exception() is not None or task.result().closed


def _failure_seen(task: asyncio.Task[LLMManager]) -> None:
    # Where all who asked were cancelled nobody looks at a failure; the next who asks tries again.
    if not task.cancelled():
        task.exception()


def _forget_closed_loops() -> None:
    # A task holds its loop, so no weak reference would ever let go of either.
    for loop in [loop for loop in list(_managers) if loop.is_closed()]:
        _managers.pop(loop, None)


async def _check_same(manager: LLMManager, source: SealedSource) -> None:
    if not await asyncio.to_thread(manager.is_of, source):
        raise LLMConfigurationError(
            "this process has a manager with another configuration; use that one, close it with close_llm_manager(), "
            "change it with manager.reload(config), or make an independent one with LLMManager.open(config)"
        )


def _after_fork() -> None:
    # What a child inherits is the parent's loop and sockets: not the child's to use or close, so it only keeps them.
    _inherited.append(dict(_managers))
    _managers.clear()


os.register_at_fork(after_in_child=_after_fork)
