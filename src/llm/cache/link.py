"""One process's way to Redis: connections that belong to a loop, and failures that nobody waits for twice."""

from __future__ import annotations

import asyncio
import os
import secrets
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol

from llm.utils.clock import SystemClock

from .rest import Rest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from llm.utils.clock import Clock

    from .hearing import Channel, Hearing
    from .scripts import Script

_PATIENCE: Final = 0.5  # seconds for one command, a new connection included: a model's answer takes longer by far
_OPENING: Final = 1.0  # seconds for the first connection of a loop, which asks what it is connected to
_MOST_AT_ONCE: Final = 16  # commands, each on a connection of its own; a server does one after the other anyway

_REAL: Final = SystemClock()  # what comes over a socket comes in real time, whatever a test's clock shows


class Client(Protocol):
    """What sends commands to one server, or to the right one of a cluster."""

    async def execute_command(self, *args: Any) -> Any:  # noqa: ANN401 - whatever the command returns
        """Send one command; returns its answer, or raises."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class Driver(Protocol):
    """The package that talks to Redis, with an address that it does not show."""

    name: str
    """The address, without user and password."""

    async def open(self) -> tuple[Client, bool]:
        """Connect; returns also whether it is a cluster."""
        ...

    def channel(self) -> Channel:
        """Return a connection of its own that can listen."""
        ...

    def refused(self, error: Exception) -> bool:
        """Return whether that is what the server answered, so that it is there and speaks to us."""
        ...

    def unknown(self, error: Exception) -> bool:
        """Return whether the server does not know the script."""
        ...

    def told(self, error: Exception) -> str:
        """Return what the error says, without anything secret."""
        ...


class Home:
    """What one loop has of it.

    Attributes:
        client: Its connections.
        cluster: Whether they go to a cluster.
        sender: Name of this process and loop, by which it knows its own messages.
        hearing: What listens, where somebody wants to know.
    """

    __slots__ = ("before", "client", "cluster", "hearing", "hook", "pid", "places", "sender")

    def __init__(self, client: Client, *, cluster: bool, before: Home | None) -> None:
        """Begin in the running loop; `before` is what a parent process had here, which is left as it is."""
        self.client: Client = client
        self.cluster: bool = cluster
        self.sender: str = secrets.token_hex(8)
        self.hearing: Hearing | None = None
        self.pid: int = os.getpid()
        self.places = asyncio.Semaphore(_MOST_AT_ONCE)
        self.before = before  # closing it would take the parent's sockets out of the parent's selector
        self.hook = _closed_with_its_loop(self)

    async def close(self) -> None:
        """Close the connections, and stop listening."""
        if self.hearing is not None:
            await self.hearing.close()
        await self.client.aclose()


class Link:
    """The connections of all loops of this process to one Redis, or one cluster.

    A failure to connect or to answer ends every call at once for a while, so a store that is gone costs few calls time.
    """

    def __init__(self, driver: Driver, clock: Clock) -> None:
        """Make it without connecting; `clock` times the pauses after failures."""
        self._driver = driver
        self._now = clock.now
        self._homes: dict[asyncio.AbstractEventLoop, Home] = {}
        self._doors: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}
        self._rest = Rest()

    def here(self) -> Home | None:
        """Return what the running loop has, None where it has not connected yet."""
        home = self._homes.get(asyncio.get_running_loop())
        return home if home is not None and home.pid == os.getpid() else None

    async def home(self) -> Home:
        """Return what the running loop has; connects first where nothing was sent from it yet.

        Raises:
            ConnectionError: It cannot be reached, or failed a moment ago.
        """
        return self.here() or await self._opened()

    async def run(self, home: Home, script: Script, key: str, *args: str | bytes | int) -> Any:  # noqa: ANN401 - its answer
        """Run a script on the keys that begin with `key`; one round trip, but for its first time on a server.

        Raises:
            ConnectionError: No answer came, or none was waited for.
            RuntimeError: The server refused it.
        """
        try:
            return await self.send(home, "EVALSHA", script.sha, 1, key, *args)
        except LookupError:
            return await self.send(home, "EVAL", script.text, 1, key, *args)

    async def send(self, home: Home, *command: str | bytes | int) -> Any:  # noqa: ANN401 - its answer
        """Send one command.

        Raises:
            ConnectionError: No answer came, or none was waited for.
            RuntimeError: The server refused it.
            LookupError: The server does not know the script that it names.
        """
        await self._place(home)
        try:
            self._ask()
            return await self._answer(home, command)
        finally:
            home.places.release()

    async def close(self) -> None:
        """Close the running loop's connections; the next use opens new ones."""
        home = self.here()
        if home is not None:
            del self._homes[asyncio.get_running_loop()]
            await home.hook.aclose()

    async def _answer(self, home: Home, command: tuple[str | bytes | int, ...]) -> Any:  # noqa: ANN401 - as it came
        try:
            async with _REAL.timeout(_PATIENCE):
                answer = await home.client.execute_command(*command)
        except Exception as error:  # noqa: BLE001 - a cluster's driver has errors of many kinds
            failure = self._failure(error)
        else:
            self._rest.worked()
            return answer
        raise failure  # out here, so that it leads to none of the driver's frames, which hold the password

    async def _place(self, home: Home) -> None:
        try:
            async with _REAL.timeout(_PATIENCE) if home.places.locked() else nullcontext():
                await home.places.acquire()
        except TimeoutError:
            raise ConnectionError(f"{self._driver.name} is too slow for all that is asked of it at once") from None

    async def _opened(self) -> Home:
        loop = asyncio.get_running_loop()
        self._doors = {each: door for each, door in self._doors.items() if not each.is_closed()}
        async with self._doors.setdefault(loop, asyncio.Lock()):
            if (home := self.here()) is not None:
                return home
            self._ask()
            try:
                async with _REAL.timeout(_OPENING):
                    client, cluster = await self._driver.open()
            except Exception as error:  # noqa: BLE001 - as above
                failure = self._failure(error)
            else:
                self._rest.worked()
                self._homes = {each: kept for each, kept in self._homes.items() if not each.is_closed()}
                home = Home(client, cluster=cluster, before=self._homes.get(loop))
                self._homes[loop] = home
                await anext(home.hook)
                return home
        raise failure

    def _ask(self) -> None:
        if not self._rest.admits(self._now()):
            raise ConnectionError(f"{self._driver.name} failed a moment ago and is left alone for a while")

    def _failure(self, error: Exception) -> Exception:
        told = f"{self._driver.name} failed: {self._driver.told(error)}"
        if self._driver.refused(error):
            self._rest.worked()
            return LookupError(told) if self._driver.unknown(error) else RuntimeError(told)
        self._rest.failed(self._now())
        return ConnectionError(told)


async def _closed_with_its_loop(home: Home) -> AsyncGenerator[None, None]:
    """Wait for who closes it: the link, or `asyncio.run` as it ends, which closes generators that are open."""
    try:
        yield
    finally:
        await home.close()
