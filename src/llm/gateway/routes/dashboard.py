"""`/dashboard`, and `/dashboard/events`, the stream of what it shows.

A browser can send no key as it loads a page. So the page holds no data and asks for the key: without one it comes as
the 401 that it is, and what it shows then comes by requests that have the key in their headers. There is no cookie
that another site's page could make use of, and no key in an address.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

import orjson

from llm.core.exceptions import LLMAuthenticationError, LLMException, LLMInvalidRequestError, LLMPoolExhaustedError
from llm.gateway.dashboard.feed import Feed
from llm.gateway.dashboard.sight import Sight
from llm.gateway.desk import Route
from llm.gateway.faults import NATIVE
from llm.gateway.pages.shell import shell
from llm.gateway.sockets import going_away
from llm.providers.endpoints.inquiry import EVENTS
from llm.utils.distribution import __version__

from .pages import SECURITY

if TYPE_CHECKING:
    from llm.gateway.desk import Desk
    from llm.gateway.exchange import Exchange
    from llm.gateway.sockets import Host
    from llm.providers.endpoints.caller import Caller

MOST_VIEWERS: Final = 32
"""Of one worker, at once."""

_PAGE: Final = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"vary", b"Accept, Authorization, X-Api-Key"),
    *(header for header in SECURITY if header[0] != b"content-security-policy"),
)
_STREAM: Final = (*EVENTS, (b"x-content-type-options", b"nosniff"), (b"x-accel-buffering", b"no"))


class Dashboard:
    """The page and its stream.

    Attributes:
        feed: What is shown.
        alone: Whether this process is the gateway's only one.
        routes: What answers at its addresses.
    """

    def __init__(self, host: Host) -> None:
        """Show the manager of `host`."""
        self._host = host
        self.feed: Feed = Feed(Sight(host.desk.manager), host.desk.clock)
        self.alone: bool = True
        self.routes: dict[tuple[str, str], Route] = {
            ("GET", "/dashboard"): Route(self.page, NATIVE, "/dashboard", public=True),
            ("GET", "/dashboard/events"): Route(self.events, NATIVE, "/dashboard/events"),
        }

    def drain(self) -> None:
        """End all streams."""
        self.feed.close()

    async def page(self, desk: Desk, exchange: Exchange) -> None:
        """Answer the page: with a 401 where a browser has no key yet, which the page then asks for.

        Raises:
            LLMException: It is switched off, the gateway ends, or the key is missing and who asks is no browser.
        """
        self._check_switch(desk)
        if desk.draining:
            raise going_away()
        status, more = 200, list[tuple[bytes, bytes]]()
        try:
            exchange.caller = self._host.caller(exchange.scope["headers"])
        except LLMAuthenticationError as error:
            if b"text/html" not in (exchange.header(b"accept") or b""):
                raise
            exchange.error = error
            status, more = 401, [(b"www-authenticate", b"Bearer")]
        body, policy = await asyncio.to_thread(shell)
        await exchange.answer(status, body, [*_PAGE, policy, *more])

    async def events(self, desk: Desk, exchange: Exchange) -> None:
        """Answer what is shown as events: first all of it, then each second what changed.

        Raises:
            LLMException: It is switched off, or too many watch.
        """
        self._check_switch(desk)
        if exchange.scope["method"] == "HEAD":  # whose answer ends with its head
            await exchange.begin(200, _STREAM)
            await exchange.finish()
            return
        feed = self.feed
        if feed.viewers >= MOST_VIEWERS:
            raise LLMPoolExhaustedError(
                f"{MOST_VIEWERS} dashboards are open here, which is the most; close one of them"
            )
        with feed.watched():
            await exchange.begin(200, _STREAM)
            hello, turn = self._hello(desk, exchange.caller), -1
            while (over := self._over(desk, exchange)) is None:
                await exchange.write(b"data: {%b%b}\n\n" % (hello, feed.event(turn, exchange.caller)))
                hello, turn = b"", feed.turn
                await feed.after(turn)
            await exchange.finish(b'event: end\ndata: {"why":"%b"}\n\n' % over)

    def _hello(self, desk: Desk, caller: Caller) -> bytes:
        told = {
            "worker": os.getpid(),
            "alone": self.alone,
            "version": __version__,
            "started": round(desk.started),
            "key": caller.name,
            "user": caller.user,
            "operator": caller.operator,
        }
        return b'"hello":%b,' % orjson.dumps(told)

    def _over(self, desk: Desk, exchange: Exchange) -> bytes | None:
        """Return in a word why a stream is to end; None where it goes on."""
        if self.feed.closed:
            return b"restart"
        try:
            self._check_switch(desk)
            known = self._host.caller(exchange.scope["headers"])
        except LLMAuthenticationError:
            return b"key"
        except LLMException:
            return b"off"
        return None if known == exchange.caller else b"restart"

    def _check_switch(self, desk: Desk) -> None:
        if not desk.manager.config.features.dashboard:
            raise LLMInvalidRequestError("there is nothing at this address; /docs lists what there is", status=404)
