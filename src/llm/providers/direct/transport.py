"""`DirectTransport`: HTTP/1.1 on connections of our own; no cookies, no redirects, errors of our own."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import LLMConnectionError
from llm.providers.frames import bare
from llm.utils.clock import SystemClock

from .heads import Heads
from .place import place_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.protocols import Reply
    from llm.utils.clock import Clock

    from .home import Home

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""The most that a whole answer may take, unpacked: twice the largest request that a vendor takes; what is larger is no
answer, and a packed one of a few bytes must not fill the memory."""


class DirectTransport:
    """Connections of its own for each event loop that it serves, opened as they are needed."""

    def __init__(
        self,
        *,
        connect_timeout: float = 5.0,
        max_body_bytes: int = MAX_BODY_BYTES,
        trust_env: bool = True,
        clock: Clock | None = None,
    ) -> None:
        """Set the bounds.

        Args:
            connect_timeout: Seconds until a connection is there, name look-up and TLS included.
            max_body_bytes: Most bytes of a whole answer, unpacked.
            trust_env: Use the proxies that the environment names.
            clock: Its time; None for the machine's.
        """
        self._connect_timeout = connect_timeout
        self._max_body_bytes = max_body_bytes
        self._trust_env = trust_env
        self._clock = clock or SystemClock()
        self._heads = Heads()
        self._homes: dict[asyncio.AbstractEventLoop, Home] = {}
        self._closed = False

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """Send once and return when the answer's head is there.

        Raises:
            LLMConnectionError: No answer; `.sent` tells whether the request may have arrived.
            LLMTimeoutError: No connection within the connect time.
        """
        try:
            home = self._homes.get(asyncio.get_running_loop()) or await self._open()
            place = place_of(url, trust_env=self._trust_env)
            return await home.exchange(method, place, self._heads.head(method, place, headers, body), body)
        except BaseException as error:  # noqa: BLE001 - raised below, without the frames that hold the key
            failure = bare(error)
        raise failure

    def warm(self) -> None:
        """Load what the first request would otherwise wait for; may run in a thread."""
        for module in (f"{__package__}.home", "urllib.request"):
            importlib.import_module(module)

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        here = self._homes.pop(asyncio.get_running_loop(), None)
        self._homes.clear()  # a loop closes the hook that nobody holds any more, and with it its connections
        if here is not None:
            await here.hook.aclose()

    async def _open(self) -> Home:
        if self._closed:
            raise LLMConnectionError("the transport is closed already; open a new manager", sent=False, retryable=False)
        for loop in [loop for loop in self._homes if loop.is_closed()]:
            del self._homes[loop]
        from .home import Home

        home = Home(self._clock, self._connect_timeout, self._max_body_bytes)
        self._homes[asyncio.get_running_loop()] = home
        await anext(home.hook)  # never waits
        return home
