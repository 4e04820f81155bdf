"""What the endpoints work with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.providers.serving.limits_write import anthropic_headers, openai_headers

from .asking import Asking
from .faults import AnthropicDialect, OpenAIDialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.client import LLMClient
    from llm.core.manager import LLMManager
    from llm.utils.clock import Clock

    from .faults import View
    from .inquiry import Header, Inquiry


class Service:
    """A manager, and what is beside it.

    Attributes:
        manager: Who calls models.
        clock: Its time.
        asking: From a caller's request to its answer.
        view: How failures look from where the callers stand.
        openai: Words failures in OpenAI's dialect.
        anthropic: Words failures in Anthropic's.
        started: Seconds since 1970 at which it began.
    """

    def __init__(
        self, manager: LLMManager, view: View, client: Callable[[str | None, str | None], LLMClient] | None = None
    ) -> None:
        """Work with `manager`, which somebody else opened and closes.

        `client` makes a client for a provider (None: the default one) and a user, where it is not to be a plain one.
        """
        self.manager: LLMManager = manager
        self.clock: Clock = manager.parts.clock
        self.asking: Asking = Asking(manager, client)
        self.view: View = view
        self.openai: OpenAIDialect = OpenAIDialect(view)
        self.anthropic: AnthropicDialect = AnthropicDialect(view)
        self.started: float = self.clock.wall()

    def limits(self, inquiry: Inquiry) -> list[Header]:
        """Return the headers that tell what the caller's own limits still let through; none where it has none.

        Not for every answer: windows are gone through for it.
        """
        user = inquiry.caller.user
        if user is None or not self.manager.config.limits.users:
            return []
        rooms = self.manager.parts.rooms(user)
        if inquiry.anthropic:
            return anthropic_headers(rooms, self.clock.wall())
        return openai_headers(rooms)
