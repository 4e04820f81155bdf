"""Managers of any kind and any loop, for code that runs in one loop."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from llm.runtime import get_llm_manager

from .manager import LLMManager

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from llm.core.manager import LLMManager as AsyncManager


@asynccontextmanager
async def manager_here(manager: AsyncManager | LLMManager | None) -> AsyncGenerator[AsyncManager]:
    """Give a manager that may be used in the loop that runs now.

    Args:
        manager: An asynchronous one of whatever loop, closed ones too; a blocking one; None for the process's one of
            this loop. One of this loop is given as it is; of another loop's one, a manager beside it until the block
            ends: `LLMManager.here` tells what they share.

    Raises:
        LLMPoolExhaustedError: The manager is closed.
        LLMConfigurationError: There is none yet, and the configuration is wrong.
    """
    if manager is None:
        yield await get_llm_manager()
        return
    inner = manager.inner if isinstance(manager, LLMManager) else manager
    here = await inner.here()
    if here is inner:
        yield inner
        return
    async with here:
        yield here
