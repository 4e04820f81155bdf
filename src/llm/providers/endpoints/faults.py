"""How a failure is told to a client: status, headers and words, in each vendor's dialect.

What is told holds no key, no prompt, no path of this machine and nothing of its insides.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import orjson

from llm.core.exceptions import LLMException, LLMInvalidRequestError, LLMPoolExhaustedError
from llm.providers.errors import Wire, wire_for
from llm.providers.serving import anthropic_write, openai_write

from .inquiry import JSON

if TYPE_CHECKING:
    from .inquiry import Header

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


class View(Protocol):
    """How failures look from where the clients stand: whose keys are refused, whose configuration is wrong."""

    def wire(self, error: LLMException, *, anthropic: bool = False) -> Wire:
        """Return status, type and code."""
        ...

    def words(self, error: LLMException) -> str:
        """Return what a client is told in words."""
        ...


class OwnView:
    """The view of a program that has the manager itself: keys and configuration are its own."""

    def wire(self, error: LLMException, *, anthropic: bool = False) -> Wire:
        """As in `View`."""
        return wire_of(error, anthropic=anthropic)

    def words(self, error: LLMException) -> str:
        """As in `View`."""
        return error.message


OWN: Final = OwnView()


class OpenAIDialect:
    """OpenAI's envelope; that of the Responses API too."""

    def __init__(self, view: View) -> None:
        """Tell failures as `view` sees them."""
        self._view = view

    def refusal(self, error: LLMException, request_id: bytes) -> Refusal:
        """Return the answer that tells of it."""
        del request_id  # it stands in a header
        wire = self._view.wire(error)
        body = openai_write.write_error(self._view.words(error), wire.type, wire.code, field_of(error))
        return refusal_of(error, wire, orjson.dumps(body))

    def event(self, error: LLMException) -> bytes:
        """Return the event that ends a stream of chat completions."""
        wire = self._view.wire(error)
        return openai_write.write_error_event(self._view.words(error), wire.type, wire.code)


class AnthropicDialect:
    """Anthropic's envelope."""

    def __init__(self, view: View) -> None:
        """Tell failures as `view` sees them."""
        self._view = view

    def refusal(self, error: LLMException, request_id: bytes) -> Refusal:
        """Return the answer that tells of it."""
        wire = self._view.wire(error, anthropic=True)
        body = anthropic_write.write_error(self._view.words(error), wire.type, request_id=request_id.decode())
        return refusal_of(error, wire, orjson.dumps(body))

    def event(self, error: LLMException) -> bytes:
        """Return the event that ends a stream of messages."""
        return anthropic_write.write_error_event(self._view.words(error), self._view.wire(error, anthropic=True).type)


def wire_of(error: LLMException, *, anthropic: bool = False) -> Wire:
    """Return status, type and code of a failure; OpenAI's clients know a missing model by its code."""
    wire = wire_for(error, anthropic=anthropic)
    if not anthropic and wire.status == HTTPStatus.NOT_FOUND and error.model is not None:
        return wire._replace(code="model_not_found")
    return wire


def field_of(error: LLMException) -> str | None:
    """Return the field of the body that is wrong, where it is one."""
    if not isinstance(error, LLMInvalidRequestError) or error.provider is not None:
        return None
    field, told, _ = error.message.partition(": expected ")
    return field if told and " " not in field else None


def refusal_of(error: LLMException, wire: Wire, body: bytes) -> Refusal:
    """Return the answer with this envelope, and when to come again where that is known."""
    headers: list[Header] = [JSON]
    seconds = error.retry_after
    if seconds is None and isinstance(error, LLMPoolExhaustedError):
        seconds = _A_MOMENT
    if wire.status in _TOLD_LATER and seconds is not None and math.isfinite(seconds):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(seconds - 1e-9))))
        headers.append((b"retry-after-ms", b"%d" % max(1, math.ceil(seconds * 1000 - 1e-6))))
    if wire.status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    return Refusal(wire.status, headers, body)
