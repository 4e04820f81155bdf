"""What other processes say about a cache that all share, heard on one channel."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_logger = logging.getLogger("llm.cache")
_SILENCE: Final = 5.0  # seconds without a message, after which the server is asked whether it is still there
_SIGN: Final = 1.0  # seconds that it has to say so
_FIRST: Final = 0.2  # seconds before the next try to listen; twice as long after each further one
_LONGEST: Final = 30.0

_REAL: Final = SystemClock()


class Channel(Protocol):
    """A connection that listens."""

    async def subscribe(self, *channels: str) -> None:
        """Begin to listen."""
        ...

    async def get_message(self, *, timeout: float) -> dict[str, Any] | None:  # noqa: ASYNC109 - as redis has it
        """Return what came, None where nothing did within so many seconds."""
        ...

    async def ping(self) -> object:
        """Ask for a sign of life, which comes as a message."""
        ...

    async def aclose(self) -> None:
        """Close the connection."""
        ...


class Hearing:
    """A task that listens, and begins anew when the connection breaks.

    Attributes:
        in_touch: Whether it listens now. When it begins to, all that was missed is made up by one `None`.
    """

    def __init__(
        self, channel: Callable[[], Channel], name: str, *, sender: str, told: Callable[[str | None], None]
    ) -> None:
        """Begin to listen, in the running loop.

        Args:
            channel: Makes a connection that can listen.
            name: What it listens to.
            sender: Who says what need not be told here.
            told: Called with each key that somebody else removed or replaced; None: any may be.
        """
        self.in_touch: bool = False
        self._channel = channel
        self._name = name
        self._sender = sender
        self._told = told
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._pause = _FIRST
        self._task = asyncio.create_task(self._run())

    @contextmanager
    def waiting(self, key: str) -> Generator[asyncio.Event]:
        """Give an event that is set when the lease on the key is given back."""
        given_back = asyncio.Event()
        waiting = self._waiting.setdefault(key, set())
        waiting.add(given_back)
        try:
            yield given_back
        finally:
            waiting.discard(given_back)
            if not waiting:
                self._waiting.pop(key, None)

    async def close(self) -> None:
        """End the task, and return when it has ended."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            channel = self._channel()
            try:
                await self._listen(channel)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next try may work
                if self.in_touch:
                    _logger.warning(
                        "the connection that tells what other processes take out of the cache broke (%s); "
                        "until it is back, nothing is answered from memory", type(error).__name__,
                    )  # fmt: skip
            finally:
                self._lost()
                with suppress(Exception):
                    await channel.aclose()
            await _REAL.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads processes, nothing secret
            self._pause = min(_LONGEST, self._pause * 2)

    def _lost(self) -> None:
        self.in_touch = False
        self._told(None)
        for key in self._waiting:  # who waits looks for itself, and finds out whether the server is there at all
            self._free(key)

    async def _listen(self, channel: Channel) -> None:
        async with _REAL.timeout(_SIGN):
            await channel.subscribe(self._name)
        silent = False
        while True:
            message = await channel.get_message(timeout=_SIGN if silent or not self.in_touch else _SILENCE)
            if message is not None:
                silent = False
                self._heard(message["type"], message["data"])
            elif silent or not self.in_touch:
                raise TimeoutError
            else:
                silent = True
                await channel.ping()

    def _heard(self, kind: str, data: object) -> None:
        if kind == "subscribe":  # also where the driver has connected anew by itself: something may have been missed
            self._told(None)
            self.in_touch = True
            self._pause = _FIRST
        elif kind == "message" and isinstance(data, bytes):
            word, _, rest = data.decode(errors="replace").partition(" ")
            if word == "free":
                self._free(rest)
            else:
                self._gone(*rest.partition(" "))

    def _gone(self, sender: str, space: str, key: str) -> None:
        if sender != self._sender:
            self._told(key if space else None)

    def _free(self, key: str) -> None:
        for given_back in self._waiting.get(key, ()):
            given_back.set()
