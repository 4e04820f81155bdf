"""One request of a client, as those who answer it know it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from itertools import count
from secrets import token_hex
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import quote

from llm.telemetry.names import OPERATION_CHAT

from .caller import ANYONE

if TYPE_CHECKING:
    from llm.core.call import Call
    from llm.core.stream import LLMStream
    from llm.core.types import TokenUsage

    from .caller import Caller

Header: TypeAlias = tuple[bytes, bytes]

JSON: Final = (b"content-type", b"application/json")
EVENTS: Final = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))

_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_PRINTED: Final = re.compile(r"[!-~]{1,256}")
_numbers: Final = count(1)
_start: Final = token_hex(8)


class Inquiry(ABC):
    """What is known of one request, and what becomes of it.

    Attributes:
        request_id: Its name in the answer's headers and in the log: the client's own where that is sane.
        caller: Who asks.
        model: Model that was asked for, then the one that answered; None where none is.
        provider: Section of the configuration that answered.
        usage: Tokens that the answer took.
        call: The call's record; None where none was made.
        cached: Whether no provider was asked.
        error: How it failed.
        stream: The answer's stream, while it runs.
        operation: OpenTelemetry's word for what is asked.
        first: Seconds to a stream's first chunk; None before it, and where there is no stream.
        generating: Seconds that the answer took to be made; None where none was.
        anthropic: Whether Anthropic's dialect is spoken.
    """

    __slots__ = (
        "anthropic", "cached", "call", "caller", "error", "first", "generating", "model", "operation", "provider",
        "request_id", "stream", "usage",
    )  # fmt: skip

    def __init__(self, given_id: bytes | None = None, *, caller: Caller = ANYONE, anthropic: bool = False) -> None:
        """Start with nothing asked yet; `given_id` is the client's own name of it."""
        self.request_id: bytes = _request_id(given_id)
        self.caller: Caller = caller
        self.model: str | None = None
        self.provider: str | None = None
        self.usage: TokenUsage | None = None
        self.call: Call | None = None
        self.cached: bool = False
        self.error: BaseException | None = None
        self.stream: LLMStream | None = None
        self.operation: str = OPERATION_CHAT
        self.first: float | None = None
        self.generating: float | None = None
        self.anthropic: bool = anthropic

    @abstractmethod
    async def body(self) -> bytes:
        """Return the whole body.

        Raises:
            LLMInvalidRequestError: It is not one that is read here.
        """


def told(value: str) -> bytes:
    """Return a name from elsewhere as the value of a header; what no header may hold is escaped."""
    return value.encode() if _PRINTED.fullmatch(value) else quote(value[:256], safe="").encode()[:1024]


def _request_id(given: bytes | None) -> bytes:
    if given is not None and _SANE_ID.fullmatch(given):
        return given
    return f"req_{_start}{next(_numbers):08x}".encode()
