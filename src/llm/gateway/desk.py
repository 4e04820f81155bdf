"""What the routes work with, and what a route is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from llm.providers.serving.limits_write import anthropic_headers, openai_headers

from .asking import Asking
from .counts import Counts

if TYPE_CHECKING:
    from llm.core.manager import LLMManager
    from llm.utils.clock import Clock

    from .exchange import Exchange, Header
    from .faults import Dialect
    from .native import Defaults


class Desk:
    """A manager, and what is beside it.

    Attributes:
        manager: Who calls models.
        clock: Its time.
        asking: From a caller's request to its answer.
        counts: What the gateway's requests came to.
        defaults: What `/v1/generate` takes where a body says nothing.
        started: Seconds since 1970 at which the gateway began.
        draining: Whether the server takes no new calls any more.
    """

    def __init__(self, manager: LLMManager, defaults: Defaults) -> None:
        """Work with `manager`, which somebody else opened and closes."""
        self.manager: LLMManager = manager
        self.clock: Clock = manager.parts.clock
        self.asking: Asking = Asking(manager)
        self.counts: Counts = Counts()
        self.defaults: Defaults = defaults
        self.started: float = self.clock.wall()
        self.draining: bool = False

    def limits(self, exchange: Exchange) -> list[Header]:
        """Return the headers that tell what the caller's own limits still let through; none where it has none.

        Not for every answer: windows are gone through for it.
        """
        user = exchange.caller.user
        if user is None or not self.manager.config.limits.users:
            return []
        rooms = self.manager.parts.rooms(user)
        if exchange.anthropic:
            return anthropic_headers(rooms, self.clock.wall())
        return openai_headers(rooms)

    def write_metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the page for Prometheus and its content type, by a request's `Accept` header; may run in a thread."""
        from .metrics import Exposition  # noqa: PLC0415 - heavy, and not every gateway is watched

        return Exposition(self.counts, self.manager).write(accept)


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
