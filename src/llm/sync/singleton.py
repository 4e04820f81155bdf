"""The one blocking manager of the process: that of the background loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm import runtime

from . import portal
from .manager import LLMManager

if TYPE_CHECKING:
    from llm.core.manager import LLMManager as AsyncManager
    from llm.core.sealed import ConfigSource

    from .portal import Portal

_latest: list[LLMManager] = []


def get_llm_manager(config: ConfigSource = None) -> LLMManager:
    """Return the manager of this process; the first call makes it, however many threads ask at the same time.

    It shares its limits with the managers of event loops that hold the same key. A forked child gets a fresh one.

    Args:
        config: A path, a mapping, an `LLMConfig`, or None for `$LLM_CONFIG`, `config/llm.yaml`, `llm.yaml` and the
            environment, in this order.

    Raises:
        LLMConfigurationError: The configuration is wrong, or another one than the manager was made with.
    """
    opening = runtime.get_llm_manager(config)
    del config  # a traceback can show what a frame holds
    home = portal.current()
    return home.run(_facade(home.run(opening), home))


def close_llm_manager() -> None:
    """Close the manager of this process and forget it; the next `get_llm_manager` makes a new one."""
    _latest.clear()
    portal.run(runtime.close_llm_manager())


async def _facade(inner: AsyncManager, home: Portal) -> LLMManager:
    # In the loop, so that threads which ask at the same time get the same one.
    if not _latest or _latest[0].inner is not inner:
        _latest[:] = [LLMManager(inner, home)]
    return _latest[0]
