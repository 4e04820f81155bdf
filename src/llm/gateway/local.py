"""A gateway without keys answers this machine alone: not the web pages of others that its browsers have open.

Such a page can send requests to a loopback address by itself, or by a name of its own that stands for one; browsers
then name the page in `Origin`, or that name in `Host`.

Source: https://fetch.spec.whatwg.org/#origin-header
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import LLMAuthenticationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .cors import Origins

_LOOPBACK: Final = re.compile(rb"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?", re.IGNORECASE)


def check_local(headers: Iterable[tuple[bytes, bytes]], origins: Origins, *, local: bool) -> None:
    """Refuse a request that a page of another site sent, unless `origins` has it.

    Args:
        headers: Those of the request, names in lower case.
        origins: Pages that may call.
        local: Whether the gateway listens on loopback alone; else, after a reload that took the last key away,
            nobody may call.

    Raises:
        LLMAuthenticationError: Says what to configure.
    """
    if not local:
        raise LLMAuthenticationError(
            "this gateway has no keys any more and other machines reach it, so it answers nobody; put a key into "
            "gateway.api_keys (`manifold keys create`), and reload"
        )
    host = origin = None
    for name, value in headers:
        if name == b"host":
            host = value
        elif name == b"origin":
            origin = value
    if host is not None and _LOOPBACK.fullmatch(host) is None:
        raise LLMAuthenticationError(
            "a gateway without keys answers only to 127.0.0.1, localhost and [::1]; make a key with "
            "`manifold keys create`, or call it by one of these names"
        )
    if origin is None or origin in origins or (host is not None and origin == b"http://" + host):
        return
    raise LLMAuthenticationError(
        "a gateway without keys answers no web page of another origin; name the page's origin in gateway.cors_origins, "
        "or make a key with `manifold keys create`"
    )
