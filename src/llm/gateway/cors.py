"""Which web pages of other origins may call: those that are named, exactly, and no other.

Keys come in headers that a page sets by itself, so no answer allows cookies.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Headers = list[tuple[bytes, bytes]]

_EXPOSED: Final = ", ".join(
    (
        "x-request-id",
        "request-id",
        "retry-after",
        "retry-after-ms",
        "x-llm-provider",
        "x-llm-model",
        "x-llm-cache",
        *(f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset") for unit in ("requests", "tokens")),
        *(
            f"anthropic-ratelimit-{unit}-{what}"
            for unit in ("requests", "tokens", "input-tokens", "output-tokens")
            for what in ("limit", "remaining", "reset")
        ),
    )
).encode()
_SECONDS_KEPT: Final = b"600"
_NAMES: Final = re.compile(rb"[\w!#$%&'*+.^`|~-]+(?:\s*,\s*[\w!#$%&'*+.^`|~-]+)*")
_USUAL_PORT: Final = re.compile(r"\A(?:(https://.*):443|(http://.*):80)\Z")
_VARY: Final = (b"vary", b"Origin")


class Origins:
    """The origins that may call.

    An answer differs by origin as soon as one is named; where none is, there is nothing to add to any answer.
    """

    __slots__ = ("_allowed", "_refused")

    def __init__(self, origins: Iterable[str]) -> None:
        """Take the origins as the configuration has them."""
        names = [_as_browsers_say(origin).encode() for origin in origins]
        self._allowed = {
            name: [(b"access-control-allow-origin", name), (b"access-control-expose-headers", _EXPOSED), _VARY]
            for name in names
        }
        self._refused: Headers = [_VARY] if names else []

    def __contains__(self, origin: bytes) -> bool:
        """Return whether pages of this origin may call."""
        return origin in self._allowed

    def headers(self, request: Sequence[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
        """Return what is added to the answer of a request with these headers, an error's included."""
        return self._allowed.get(_value(request, b"origin"), self._refused) if self._allowed else ()

    def preflight(self, request: Sequence[tuple[bytes, bytes]]) -> tuple[int, Headers] | None:
        """Return status and headers of the answer to an OPTIONS request in which a browser asks for leave.

        It names neither key nor caller, so it is answered before any is looked for. None: it is no such request.
        """
        method = _value(request, b"access-control-request-method")
        if not method:
            return None
        origin = _value(request, b"origin")
        if origin not in self._allowed:
            return 403, [*self._refused, (b"content-length", b"0")]
        names = _value(request, b"access-control-request-headers")
        return 204, [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", b"GET, POST"),
            *([(b"access-control-allow-headers", names)] if _NAMES.fullmatch(names) else []),
            (b"access-control-max-age", _SECONDS_KEPT),
            (b"vary", b"Origin, Access-Control-Request-Headers"),
        ]


def _as_browsers_say(origin: str) -> str:
    """Return an origin as browsers write it: in lower case, without the port that its scheme has anyway."""
    lower = origin.lower()
    usual = _USUAL_PORT.match(lower)
    return lower if usual is None else usual[1] or usual[2]


def _value(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    """Return the one value of a header; nothing where there is none, or more than one."""
    found = [value for name, value in headers if name == wanted]
    return found[0] if len(found) == 1 else b""
