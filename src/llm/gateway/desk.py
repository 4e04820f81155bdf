"""What the routes work with, and what a route is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from .asking import Asking

if TYPE_CHECKING:
    from llm.core.manager import LLMManager
    from llm.utils.clock import Clock

    from .exchange import Exchange
    from .faults import Dialect


class Desk:
    """A manager, and what is beside it.

    Attributes:
        manager: Who calls models.
        clock: Its time.
        asking: From a caller's request to its answer.
        draining: Whether the server takes no new calls any more.
    """

    __slots__ = ("asking", "clock", "draining", "manager")

    def __init__(self, manager: LLMManager) -> None:
        """Work with `manager`, which somebody else opened and closes."""
        self.manager: LLMManager = manager
        self.clock: Clock = manager.parts.clock
        self.asking: Asking = Asking(manager)
        self.draining: bool = False


class Handler(Protocol):
    """Answers requests of one route."""

    async def __call__(self, desk: Desk, exchange: Exchange, /) -> None:
        """Answer one.

        Raises:
            LLMException: It failed before its answer began.
        """


class Route(NamedTuple):
    """What a method at a path leads to.

    Attributes:
        handle: Answers.
        dialect: Words what fails.
        endpoint: What metrics and the log call it.
        public: Whether it needs no key where there are keys.
    """

    handle: Handler
    dialect: Dialect
    endpoint: str
    public: bool = False
