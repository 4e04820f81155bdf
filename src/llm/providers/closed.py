"""What a provider sends by once it is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.core.exceptions import LLMConnectionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.protocols import Reply


def closed() -> LLMConnectionError:
    """Return the error of a call that comes too late."""
    return LLMConnectionError(
        "the provider is closed; call through a manager that is open", sent=False, retryable=False
    )


class ClosedTransport:
    """A `Transport` that sends nothing any more; in the place of the true one it costs open providers no question."""

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """Refuse.

        Raises:
            LLMConnectionError: Always.
        """
        del method, url, headers, body
        raise closed()

    async def close(self) -> None:
        """Do nothing."""
