"""The composition root: which parts make a manager, and the one manager of the process.

Importing it installs the composer; the parts themselves are imported when the first manager opens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.core.manager import install_composer

from .registry import register_provider
from .singleton import close_llm_manager, get_llm_manager

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from llm.core.config import LLMConfig
    from llm.core.inflight import Outbox
    from llm.core.manager import LLMManager
    from llm.core.parts import Parts
    from llm.core.protocols import Transport
    from llm.providers.in_process import ManagerTransport
    from llm.utils.clock import Clock

__all__ = ["close_llm_manager", "compose_parts", "get_llm_manager", "register_provider"]


def compose_parts(config: LLMConfig, *, clock: Clock, outbox: Outbox, transport: Transport | None = None) -> Parts:
    """Build all parts of a configuration; opens nothing.

    Raises:
        LLMConfigurationError: It names what there is not.
    """
    from .compose import Composition  # noqa: PLC0415 - loads every layer and provider that is used

    return Composition(config, clock=clock, outbox=outbox, transport=transport)


def _make_transport(manager: LLMManager, loop: AbstractEventLoop, user: str | None, priority: int) -> ManagerTransport:
    from llm.providers.in_process import ManagerTransport  # noqa: PLC0415 - only for programs that use it

    return ManagerTransport(manager, loop, user=user, priority=priority)


install_composer(compose_parts, _make_transport)
