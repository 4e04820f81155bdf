"""The head of a request, as bytes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import LLMConnectionError
from llm.providers.dialect import Headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .place import Place

_MOST: Final = 256
"""Heads that are kept: one per key and address. More are no fixed set, so it starts again."""

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""Source: RFC 9110, section 5.1."""

_BODILESS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS"})
_OURS: Final = frozenset({"connection", "content-length", "host", "transfer-encoding"})
_DEFAULTS: Final = {"user-agent": "llm-manifold", "accept": "*/*", "accept-encoding": "gzip, deflate"}


class Heads:
    """Writes heads; those for `Headers`, which never change, are written once."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        """Start with none."""
        self._known: dict[tuple[int, Place, str], tuple[Headers, bytes]] = {}

    def head(self, method: str, place: Place, headers: Mapping[str, str], body: bytes | None) -> bytes:
        """Return the head up to its blank line.

        Raises:
            LLMConnectionError: A field may not be sent as it is.
        """
        start = self._start(method, place, headers)
        if body is None and method in _BODILESS:
            return start + b"\r\n"
        return b"%bcontent-length: %d\r\n\r\n" % (start, len(body or b""))

    def _start(self, method: str, place: Place, headers: Mapping[str, str]) -> bytes:
        if type(headers) is not Headers:
            return _written(method, place, headers)
        key = (id(headers), place, method)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            # Held with the head, or its id could become another's.
            known = self._known[key] = headers, _written(method, place, headers)
        return known[1]


def _written(method: str, place: Place, headers: Mapping[str, str]) -> bytes:
    fields = {"host": place.host_field.decode("ascii"), **_DEFAULTS}
    if place.authorization:
        fields["authorization"] = place.authorization.decode("ascii")
    proxy = place.origin.proxy
    if proxy is not None and proxy.authorization and not place.origin.secure:
        fields["proxy-authorization"] = proxy.authorization.decode("ascii")
    bad = _add(fields, headers)
    if _NAME.fullmatch(method) is None:
        bad = "the method"
    if bad is None:
        lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
        return b"%b %b HTTP/1.1\r\n%b" % (method.encode(), place.target, lines.encode())
    fields.clear()  # or a traceback that shows local variables would show the key
    raise LLMConnectionError(
        f"cannot ask {place.origin.host}: {bad} may not be sent as it is; take line ends and other control "
        "characters out of it, and leave the framing to us",
        sent=False,
        retryable=False,
    )


def _add(fields: dict[str, str], headers: Mapping[str, str]) -> str | None:
    """Add what may be sent, and return the name of what may not."""
    for name in headers:
        low = name.lower()
        if _NAME.fullmatch(name) is None or low in _OURS:
            return f"the header {name!r}"
        if not _is_value(headers[name]):
            return f"the value of the header {low!r}"
        fields[low] = headers[name]
    return None


def _is_value(value: str) -> bool:
    return value.isprintable() or value.replace("\t", " ").isprintable()
