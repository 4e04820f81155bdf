"""How a failure is told to a client: status, headers and words, in each dialect.

What is told holds no key, no prompt, no path of this machine and nothing of its insides.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import orjson

from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMConfigurationError,
    LLMException,
    LLMInvalidRequestError,
    LLMPoolExhaustedError,
)
from llm.providers.errors import Wire, wire_for
from llm.providers.serving import anthropic_write, openai_write

if TYPE_CHECKING:
    from .exchange import Header

_KEYS_REFUSED: Final = (Wire(502, "server_error", "upstream_authentication"), Wire(502, "api_error"))
_OURS: Final = {status: Wire(status, "invalid_request_error") for status in (405, 415)}
"""What only a gateway says of a request, in the same words in each dialect."""

_TOLD_LATER: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, 529})
_A_MOMENT: Final = 1.0  # second; where nobody knows when there is room again


class Refusal(NamedTuple):
    """A failure as an answer.

    Attributes:
        status: HTTP status.
        headers: Headers.
        body: The envelope.
    """

    status: int
    headers: list[Header]
    body: bytes


class Dialect(Protocol):
    """How one dialect words a failure."""

    def refusal(self, error: LLMException, request_id: bytes) -> Refusal:
        """Return the answer that tells of it."""
        ...


class OpenAIDialect:
    """OpenAI's envelope; that of the Responses API too."""

    def refusal(self, error: LLMException, request_id: bytes) -> Refusal:
        """As in `Dialect`."""
        del request_id  # it stands in a header
        wire = wire_of(error)
        body = openai_write.write_error(words(error), wire.type, wire.code, field_of(error))
        return _answer(error, wire, orjson.dumps(body))

    def event(self, error: LLMException) -> bytes:
        """Return the event that ends a stream of chat completions."""
        wire = wire_of(error)
        return openai_write.write_error_event(words(error), wire.type, wire.code)


class AnthropicDialect:
    """Anthropic's envelope."""

    def refusal(self, error: LLMException, request_id: bytes) -> Refusal:
        """As in `Dialect`."""
        wire = wire_of(error, anthropic=True)
        body = anthropic_write.write_error(words(error), wire.type, request_id=request_id.decode())
        return _answer(error, wire, orjson.dumps(body))

    def event(self, error: LLMException) -> bytes:
        """Return the event that ends a stream of messages."""
        return anthropic_write.write_error_event(words(error), wire_of(error, anthropic=True).type)


class NativeDialect:
    """The envelope of the gateway's own routes: `{"error": {"type", "message"}}`."""

    def refusal(self, error: LLMException, request_id: bytes) -> Refusal:
        """As in `Dialect`."""
        del request_id
        return _answer(error, wire_of(error), orjson.dumps({"error": native(error)}))

    def event(self, error: LLMException) -> bytes:
        """Return the event that ends a stream of texts."""
        return b"data: " + orjson.dumps({"error": native(error)}) + b"\n\n"


OPENAI: Final = OpenAIDialect()
ANTHROPIC: Final = AnthropicDialect()
NATIVE: Final = NativeDialect()


def native(error: LLMException) -> dict[str, str]:
    """Return a failure as the gateway's own routes tell it: its type, the more exact word where there is one."""
    wire = wire_of(error)
    return {"type": wire.code or wire.type, "message": words(error)}


def wire_of(error: LLMException, *, anthropic: bool = False) -> Wire:
    """Return status, type and code of a failure, from where the client stands.

    A key that a provider refuses is the gateway's, and none that the client could do anything about.
    """
    if isinstance(error, LLMAuthenticationError) and error.provider is not None and not error.model_only:
        return _KEYS_REFUSED[anthropic]
    if isinstance(error, LLMInvalidRequestError) and error.provider is None and error.status in _OURS:
        return _OURS[error.status]
    wire = wire_for(error, anthropic=anthropic)
    if not anthropic and wire.status == HTTPStatus.NOT_FOUND and error.model is not None:
        return wire._replace(code="model_not_found")
    return wire


def words(error: LLMException) -> str:
    """Return what a client is told in words."""
    if isinstance(error, LLMConfigurationError):
        return "the gateway is not configured for this; its operator finds more in its log"
    if isinstance(error, LLMAuthenticationError) and error.provider is not None and not error.model_only:
        return f"the provider {error.provider!r} refuses the gateway's keys; its operator has to look at them"
    return error.message


def field_of(error: LLMException) -> str | None:
    """Return the field of the body that is wrong, where it is one."""
    if not isinstance(error, LLMInvalidRequestError) or error.provider is not None:
        return None
    field, told, _ = error.message.partition(": expected ")
    return field if told and " " not in field else None


def _answer(error: LLMException, wire: Wire, body: bytes) -> Refusal:
    headers: list[Header] = [(b"content-type", b"application/json")]
    seconds = error.retry_after
    if seconds is None and isinstance(error, LLMPoolExhaustedError):
        seconds = _A_MOMENT
    if wire.status in _TOLD_LATER and seconds is not None and math.isfinite(seconds):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(seconds - 1e-9))))
        headers.append((b"retry-after-ms", b"%d" % max(1, math.ceil(seconds * 1000 - 1e-6))))
    if wire.status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    return Refusal(wire.status, headers, body)
