"""What the two vendors do differently, as far as `MockUpstream` plays it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llm.core.call import Charge
    from llm.core.types import LLMRequest, LLMResponse, StreamChunk, TokenUsage

    from .accounts import Account, Refusal

Route: TypeAlias = Literal["answer", "embeddings", "models", "count", "key"]


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a vendor words it.

    Attributes:
        status: HTTP status.
        type: The vendor's type.
        message: Its words.
        code: OpenAI's code.
        page: An HTML page that comes instead of the envelope.
    """

    status: int
    type: str = ""
    message: str = ""
    code: str | None = None
    page: str | None = None


class Stamp(NamedTuple):
    """What an answer is marked with.

    Attributes:
        number: Number of the request.
        now: Monotonic seconds.
        wall: Seconds since 1970.
    """

    number: int
    now: float
    wall: float


class Vendor(Protocol):
    """One vendor's dialect and rules."""

    name: str
    root: str
    """What the vendor's own client has at the end of its base URL."""
    public: frozenset[Route]
    """What is answered without a key."""

    def route(self, method: str, path: str) -> Route | None:
        """Return what is asked for; None for what is not there."""
        ...

    def key(self, headers: Mapping[str, str]) -> str | None:
        """Return the key that the request carries; header names are in lower case."""
        ...

    def read(self, body: Mapping[str, Any]) -> LLMRequest:
        """Read a request for an answer, for vectors, or for a count.

        Raises:
            LLMInvalidRequestError: It is wrong.
        """
        ...

    def charge(self, request: LLMRequest) -> Charge:
        """Return what admission takes."""
        ...

    def used(self, usage: TokenUsage) -> Charge:
        """Return what is taken in the end."""
        ...

    def limit_headers(self, account: Account, stamp: Stamp) -> dict[str, str]:
        """Return the headers that tell what is left."""
        ...

    def retry_headers(self, seconds: float) -> dict[str, str]:
        """Return the headers that tell how long to wait."""
        ...

    def failure(self, kind: str) -> Failure:
        """Return what a kind of refusal looks like; kinds as in `REFUSALS`, and `missing` and `unknown_path`."""
        ...

    def too_much(self, refusal: Refusal, model: str) -> Failure:
        """Return what a reached limit looks like."""
        ...

    def envelope(self, failure: Failure, stamp: Stamp) -> bytes:
        """Return an error's body."""
        ...

    def error_event(self, failure: Failure, sent: bytes) -> bytes:
        """Return an error in the middle of a stream, after what was `sent` of it."""
        ...

    def garbage_event(self, data: bytes) -> bytes:
        """Return an event with senseless data."""
        ...

    def whole(self, response: LLMResponse, stamp: Stamp) -> bytes:
        """Return a whole answer's body."""
        ...

    def events(
        self, body: Mapping[str, Any], response: LLMResponse, chunks: Sequence[StreamChunk], stamp: Stamp
    ) -> list[bytes]:
        """Return a stream's pieces: the first with what comes before it, and what closes it by itself at the end."""
        ...

    def aside(self, route: Route, body: Mapping[str, Any], names: Iterable[str], stamp: Stamp) -> bytes:
        """Return the body that answers a route that is no chat; `names` are the models there are."""
        ...

    def identify(self, number: int) -> dict[str, str]:
        """Return the header that names the exchange."""
        ...

    def answer_id(self, number: int) -> str:
        """Return the identifier of an answer."""
        ...


def whole_seconds(seconds: float) -> str:
    """Return a wait in whole seconds, never too few."""
    return str(math.ceil(seconds - 1e-9))
