"""How a failure is told to the gateway's clients, who have none of its keys and did not configure it.

What is told holds no key, no prompt, no path of this machine and nothing of its insides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import orjson

from llm.core.exceptions import LLMAuthenticationError, LLMConfigurationError, LLMInvalidRequestError
from llm.providers.endpoints import faults
from llm.providers.endpoints.faults import AnthropicDialect, OpenAIDialect, refusal_of
from llm.providers.errors import Wire

if TYPE_CHECKING:
    from llm.core.exceptions import LLMException
    from llm.providers.endpoints.faults import Refusal

_KEYS_REFUSED: Final = (Wire(502, "server_error", "upstream_authentication"), Wire(502, "api_error"))
_OURS: Final = {status: Wire(status, "invalid_request_error") for status in (405, 415)}
"""What only a gateway says of a request, in the same words in each dialect."""


class Dialect(Protocol):
    """How one dialect words a failure."""

    def refusal(self, error: LLMException, request_id: bytes) -> Refusal:
        """Return the answer that tells of it."""
        ...


class GatewayView:
    """The view of the gateway's clients."""

    def wire(self, error: LLMException, *, anthropic: bool = False) -> Wire:
        """Return status, type and code of a failure.

        A key that a provider refuses is the gateway's, and none that the client could do anything about.
        """
        if _refuses_our_key(error):
            return _KEYS_REFUSED[anthropic]
        if isinstance(error, LLMInvalidRequestError) and error.provider is None and error.status in _OURS:
            return _OURS[error.status]
        return faults.wire_of(error, anthropic=anthropic)

    def words(self, error: LLMException) -> str:
        """Return what a client is told in words."""
        if isinstance(error, LLMConfigurationError):
            return "the gateway is not configured for this; its operator finds more in its log"
        if _refuses_our_key(error):
            return f"the provider {error.provider!r} refuses the gateway's keys; its operator has to look at them"
        return error.message


class NativeDialect:
    """The envelope of the gateway's own routes: `{"error": {"type", "message"}}`."""

    def refusal(self, error: LLMException, request_id: bytes) -> Refusal:
        """As in `Dialect`."""
        del request_id
        return refusal_of(error, VIEW.wire(error), orjson.dumps({"error": native(error)}))

    def event(self, error: LLMException) -> bytes:
        """Return the event that ends a stream of texts."""
        return b"data: " + orjson.dumps({"error": native(error)}) + b"\n\n"


VIEW: Final = GatewayView()
OPENAI: Final = OpenAIDialect(VIEW)
ANTHROPIC: Final = AnthropicDialect(VIEW)
NATIVE: Final = NativeDialect()


def native(error: LLMException) -> dict[str, str]:
    """Return a failure as the gateway's own routes tell it: its type, the more exact word where there is one."""
    wire = VIEW.wire(error)
    return {"type": wire.code or wire.type, "message": VIEW.words(error)}


def _refuses_our_key(error: LLMException) -> bool:
    return isinstance(error, LLMAuthenticationError) and error.provider is not None and not error.model_only
