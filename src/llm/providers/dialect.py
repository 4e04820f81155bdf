"""What a vendor's dialect is: pure functions between our values and the bytes on the wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from llm.core.exceptions import LLMConfigurationError
from llm.utils.redact import Secret

if TYPE_CHECKING:
    from llm.core.call import Charge, LimitReport
    from llm.core.protocols import EmbeddingLimits
    from llm.core.structured import Shape
    from llm.core.types import LLMRequest, LLMResponse, StreamChunk, TokenUsage
    from llm.utils.sse import Event

    from .limit_headers import Told
    from .structured import Ways


class EventReader(Protocol):
    """Reads one stream's events."""

    @property
    def id(self) -> str:
        """The provider's identifier of the answer, once it came; else empty."""
        ...

    @property
    def model(self) -> str:
        """Model that answers, as the provider names it, once it came; else empty."""
        ...

    @property
    def raw(self) -> Mapping[str, Any] | None:
        """The answer as its events told it so far, for `LLMResponse.raw`; None where they told nothing."""
        ...

    @property
    def done(self) -> bool:
        """Whether the closing event came."""
        ...

    def feed(self, event: Event) -> StreamChunk | tuple[StreamChunk, ...] | None:
        """Take an event and return its chunk, or several; None where it holds nothing for the caller.

        Raises:
            LLMException: It tells of a failure, or makes no sense.
        """
        ...


class Dialect(Protocol):
    """One vendor's wire format, for one base URL."""

    @property
    def url(self) -> str:
        """Where calls are sent."""
        ...

    @property
    def health_url(self) -> str:
        """What can be asked without costing tokens."""
        ...

    def headers(self, key: Secret | None) -> Mapping[str, str]:
        """Return the headers of every request; showing them does not show the key.

        Raises:
            LLMConfigurationError: The key holds characters that no header may.
        """
        ...

    def encode(self, request: LLMRequest, *, stream: bool) -> bytes:
        """Return the body.

        Raises:
            LLMInvalidRequestError: The dialect cannot express the request; names the field.
        """
        ...

    def ways(self, request: LLMRequest, shape: Shape) -> Ways:
        """Return the ways to ask for an answer of this form."""
        ...

    def decode(self, body: bytes, *, provider: str, key: str | None) -> LLMResponse:
        """Read a whole answer; `provider` and `key` (a fingerprint) go into it.

        Raises:
            LLMServerError: It makes no sense.
            LLMException: It tells of a failure.
        """
        ...

    def events(self) -> EventReader:
        """Return a reader for one stream."""
        ...

    def reports(self, headers: Mapping[str, str], told: Told) -> tuple[LimitReport, ...]:
        """Read what an answer's headers say of the vendor's limits; nothing where they say nothing of use."""
        ...

    def charge(self, request: LLMRequest, expected_output: int) -> Charge:
        """Return what the vendor charges at admission; `expected_output` stands in for a missing `max_tokens`."""
        ...

    def used(self, usage: TokenUsage) -> Charge:
        """Return what an answer of this usage takes from the limits in the end."""
        ...


class EmbeddingFormat(Protocol):
    """How one vendor's vectors are asked for and come, for one base URL."""

    @property
    def url(self) -> str:
        """Where calls are sent."""
        ...

    @property
    def limits(self) -> EmbeddingLimits:
        """The most in one request."""
        ...

    def encode(self, request: LLMRequest) -> bytes:
        """Return the body.

        Raises:
            LLMInvalidRequestError: The format cannot express the request; names the field.
        """
        ...

    def decode(self, body: bytes, request: LLMRequest, *, provider: str, key: str | None) -> LLMResponse:
        """Read the answer to `request`; `provider` and `key` (a fingerprint) go into it.

        Raises:
            LLMServerError: It makes no sense, or is not what was asked for.
            LLMException: It tells of a failure.
        """
        ...


@runtime_checkable
class EmbeddingDialect(Protocol):
    """A dialect in which vectors can be asked for; not every one has them."""

    @property
    def embeddings(self) -> EmbeddingFormat:
        """Their format."""
        ...


class Headers(Mapping[str, str]):
    """Headers of which one holds a key; its text appears only to who asks for the header."""

    __slots__ = ("_fields", "_key", "_name", "_prefix")

    def __init__(self, fields: Mapping[str, str], name: str, key: Secret | None, *, prefix: str = "") -> None:
        """Keep `fields`, and `name` for the key behind `prefix`; without a key there is no such header.

        Raises:
            LLMConfigurationError: The key holds characters that no header may.
        """
        if key is not None and not _is_header_text(key):
            raise LLMConfigurationError(
                f"the key {key.fingerprint} is empty, or holds blanks, line ends or letters beyond ASCII, which no "
                "header may; correct it under api_keys"
            )
        self._fields = dict(fields)
        self._name = name
        self._key = key
        self._prefix = prefix

    def __getitem__(self, name: str) -> str:
        """Return a header's text."""
        if name == self._name and self._key is not None:
            return self._prefix + self._key.reveal()
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        """Go over the names."""
        yield from self._fields
        if self._key is not None:
            yield self._name

    def __len__(self) -> int:
        """Count them."""
        return len(self._fields) + (self._key is not None)

    def __repr__(self) -> str:
        """Return the names only."""
        return f"Headers({', '.join(self)})"


class Passing(Mapping[str, str]):
    """The headers of one request: those of all, and its own, which go before; never kept, as `Headers` are."""

    __slots__ = ("_headers", "_own")

    def __init__(self, headers: Mapping[str, str], own: Mapping[str, str]) -> None:
        """Put `own` before `headers`; names are in lower case."""
        self._headers = headers
        self._own = own

    def __getitem__(self, name: str) -> str:
        """Return a header's text."""
        return self._own[name] if name in self._own else self._headers[name]

    def __iter__(self) -> Iterator[str]:
        """Go over the names."""
        yield from (name for name in self._headers if name.lower() not in self._own)
        yield from self._own

    def __len__(self) -> int:
        """Count them."""
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        """Return the names only."""
        return f"Passing({', '.join(self)})"


def joined(headers: Mapping[str, str], more: Mapping[str, Secret | str]) -> Mapping[str, str]:
    """Return the headers of a dialect and those of a configuration, which go before; showing them shows no value."""
    if not more:
        return headers
    fields = {name: headers[name] for name in headers}
    for name, value in more.items():
        fields[name.lower()] = value.reveal() if isinstance(value, Secret) else value
    return Headers(fields, "", None)


def _is_header_text(key: Secret) -> bool:
    return key.reveal().isascii() and key.reveal().isprintable() and key.reveal().split() == [key.reveal()]


def root_of(base_url: str, *, version: str) -> str:
    """Return the address that paths are put behind: `base_url` with the version at its end where it has no path.

    Raises:
        LLMConfigurationError: It is no web address.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise LLMConfigurationError(
            "base_url is no address such as https://api.example.com/v1; give it with http or https, a host, and "
            "without query and fragment"
        )
    root = base_url.rstrip("/")
    return root if parts.path.strip("/") else root + version
