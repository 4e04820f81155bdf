"""`/docs`, `/redoc`, `/openapi.json`, and what those pages load."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from llm.gateway.pages import files

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.gateway.desk import Desk, Handler
    from llm.gateway.exchange import Exchange
    from llm.gateway.pages.files import File

_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; font-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'"
)
SECURITY: Final = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
"""Headers of every page: it loads what the gateway itself has, and stands in no frame."""


def handlers() -> dict[str, Handler]:
    """Return what answers at each address of a page or of what it loads."""
    there = {
        "/openapi.json": _handler(files.document),
        "/docs": _handler(lambda: files.page("docs")),
        "/redoc": _handler(lambda: files.page("redoc")),
    }
    return there | {files.ASSETS + name: _asset(name) for name in files.NAMES}


def _asset(name: str) -> Handler:
    return _handler(lambda: files.asset(name))


def _handler(read: Callable[[], File]) -> Handler:
    async def handle(_: Desk, exchange: Exchange) -> None:
        file = await asyncio.to_thread(read)
        await exchange.answer(200, file.body, [(b"content-type", file.kind.encode()), *SECURITY])

    return handle
