"""What the routes work with, and what a route is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from llm.providers.endpoints.service import Service

from .counts import Counts
from .faults import VIEW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.client import LLMClient
    from llm.core.manager import LLMManager

    from .exchange import Exchange
    from .faults import Dialect
    from .native import Defaults
    from .siblings import Siblings


class Desk(Service):
    """A manager, and what is beside it.

    Attributes:
        counts: What the gateway's requests came to.
        defaults: What `/v1/generate` takes where a body says nothing.
        draining: Whether the server takes no new calls any more.
        siblings: The other workers, where there are any.
    """

    def __init__(self, manager: LLMManager, defaults: Defaults) -> None:
        """Work with `manager`, which somebody else opened and closes."""
        super().__init__(manager, VIEW, self._client)
        self.counts: Counts = Counts()
        self.defaults: Defaults = defaults
        self.draining: bool = False
        self.siblings: Siblings | None = None

    def _client(self, provider: str | None, user: str | None) -> LLMClient:
        client = self.manager.get_client(provider, user=user)
        client.max_user_wait = self.manager.config.gateway.max_user_wait
        return client

    def write_metrics(self, accept: str, others: Mapping[int, bytes] | None = None) -> tuple[bytes, str]:
        """Return the page for Prometheus and its content type, by a request's `Accept` header; may run in a thread.

        With the pages of `others` by their places it is one of all workers.
        """
        from .metrics import WHOLE, Exposition, merged  # noqa: PLC0415 - heavy, and not every gateway is watched

        exposition = Exposition(self.counts, self.manager)
        if self.siblings is None or others is None:
            return exposition.write(accept)
        own, _ = exposition.write(WHOLE)
        return merged({**others, self.siblings.place: own}, self.siblings.count, accept)

    def write_own_metrics(self) -> bytes:
        """Return this worker's page, in the form in which another one reads it; may run in a thread."""
        from .metrics import WHOLE  # noqa: PLC0415 - as above

        page, _ = self.write_metrics(WHOLE)
        return page


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
