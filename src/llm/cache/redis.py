"""A cache that several processes and machines share, in Redis or Valkey."""

from __future__ import annotations

import math
import random
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit
from zlib import crc32

import orjson

from llm.core.exceptions import LLMConfigurationError
from llm.utils.clock import SystemClock
from llm.utils.redact import MASK, Secret, redact

from . import scripts
from .base import CacheEntry, CacheUsage
from .hearing import Hearing
from .lease import OwnLease, milliseconds
from .link import Link
from .record import decode, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from redis.asyncio import Redis

    from llm.utils.clock import Clock

    from .hearing import Channel
    from .lease import Lease
    from .link import Client, Home
    from .scripts import Script

_LONGEST: Final = 315_360_000.0  # seconds, ten years: what a time to live is at most
_SHARDS: Final = 16  # of a cluster: parts of the cache that may lie on different servers, each with an index of its own
_CONNECT: Final = 0.5  # seconds for a connection: it is tried again by the next call, and a call waits for no cache
_MOST_AT_ONCE: Final = 500  # entries that one step removes; others wait for it about a hundredth of a second
_PAGE: Final = 50  # entries that one step of a scan returns
_POLL: Final = 0.25  # seconds between two looks at a lease while nothing can be heard of it
_POLL_IN_TOUCH: Final = 1.0  # and while it can: a server may stop without a sign; each waits for some part of it
_SECOND: Final = 1_000_000  # microseconds


class RedisCache:
    """A `CacheBackend` in Redis: the least recently used entries go first when it is full.

    Each method is one round trip, in which an entry and its rows in the index change together; only what may touch
    thousands of entries takes several. Ages and ends are by the server's time, which is the same for all machines.
    The bounds are for all processes together; each goes by its own. On a cluster the cache has 16 parts, spread over
    the servers, and each part has a sixteenth of the bounds.

    It raises within half a second where the server does not answer, and for a while after that at once. Redis may
    evict entries by itself; a policy that also evicts what has no time to live (`allkeys-…`) may take the index, and
    then what that listed is gone. One that is flushed by hand has no way to tell other processes' memory levels.

    It is `Leasing` and `Invalidating` too. Loops and forked processes have connections of their own.
    """

    def __init__(
        self, url: str, *, max_entries: int, max_bytes: int, prefix: str = "llm", clock: Clock | None = None
    ) -> None:
        """Make it without connecting.

        Args:
            url: Where it is: `redis://`, `rediss://` (TLS) or `unix://`; any server of a cluster. Shown nowhere.
            max_entries: Most entries at once, 1 or more.
            max_bytes: Most bytes of all values together, as they are kept, 1 or more.
            prefix: Begins the names of all its keys; caches with different ones share nothing.
            clock: For tests: the time of ages and ends in place of the server's. Redis removes by its own all the same.

        Raises:
            ValueError: A bound is below 1.
            LLMConfigurationError: The url is none, or the package `redis` is missing.
        """
        if max_entries < 1 or max_bytes < 1:
            raise ValueError(f"max_entries is {max_entries} and max_bytes {max_bytes}; expected 1 or more of each")
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._prefix = f"{prefix}:cache"
        self._channel = f"{prefix}:cache:told"
        self._wall = None if clock is None else clock.wall
        self._clock: Clock = clock or SystemClock()
        self._driver = _Driver(url)
        self._link = Link(self._driver, self._clock)
        self._forget: list[Callable[[str | None], None]] = []

    def __repr__(self) -> str:
        """Show where it is, and nothing secret."""
        return f"RedisCache({self._driver.name})"

    async def get(self, key: str) -> CacheEntry | None:
        """Return what is under the key; None where nothing is.

        Raises:
            ConnectionError: No answer came, or none was waited for.
            RuntimeError: The server refused; so for every method.
        """
        home = await self._home()
        value, left = await self._link.run(home, scripts.READ, self._at(home, key), self._time(), key)
        return None if value is None else await self._entry(key, value, left)

    async def get_many(self, keys: Iterable[str]) -> dict[str, CacheEntry]:
        """Return what is there of several keys; on a cluster in one round trip for each part that they lie in."""
        home = await self._home()
        parts: dict[str, list[str]] = {}
        for key in keys:
            parts.setdefault(self._at(home, key), []).append(key)
        found: dict[str, CacheEntry] = {}
        for at, wanted in parts.items():
            told = await self._link.run(home, scripts.READ, at, self._time(), *wanted)
            for key, value, left in zip(wanted, told[::2], told[1::2], strict=True):
                if value is not None and (entry := await self._entry(key, value, left)) is not None:
                    found[key] = entry
        return found

    async def put(self, key: str, value: bytes, *, ttl: float, tags: Iterable[str] = ()) -> None:
        """Keep the value for `ttl` seconds, in place of what was under the key; zero or less removes that."""
        home = await self._home()
        ttl, names = min(ttl, _LONGEST), tuple(tags)
        kept, size = encode(value, ttl, names) if ttl > 0 and len(value) <= self._max_bytes else (b"", 0)
        row = orjson.dumps([size, math.ceil(ttl * _SECOND), names])
        parts = _SHARDS if home.cluster else 1
        bounds = max(1, self._max_entries // parts), self._max_bytes // parts
        await self._change(home, scripts.WRITE, self._at(home, key), key, kept, row, *bounds)

    async def exists(self, key: str) -> bool:
        """Return whether something is under the key; does not count as a use."""
        home = await self._home()
        return bool(await self._link.run(home, scripts.EXISTS, self._at(home, key), self._time(), key))

    async def delete(self, key: str) -> bool:
        """Remove what is under the key; returns whether something was."""
        home = await self._home()
        return bool(await self._change(home, scripts.DELETE, self._at(home, key), key))

    async def clear(self) -> None:
        """Remove everything."""
        await self.remove()

    async def remove(self, *, tags: Iterable[str] = (), older_than: float = 0.0) -> int:
        """Remove the entries that carry all of these tags and are at least so many seconds old; returns how many."""
        home = await self._home()
        wanted, least, count = orjson.dumps(tuple(tags)), _micro(older_than), 0
        for at in self._parts(home):
            more: bytes | None = b""
            while more is not None:
                removed, more = await self._change(home, scripts.REMOVE, at, wanted, least, more, _MOST_AT_ONCE)
                count += removed
        return count

    async def scan(self, *, tags: Iterable[str] = (), older_than: float = 0.0) -> AsyncIterator[tuple[str, CacheEntry]]:
        """Return keys and entries that carry all of these tags and are at least so many seconds old, in no order."""
        home = await self._home()
        wanted, least = orjson.dumps(tuple(tags)), _micro(older_than)
        for at in self._parts(home):
            more: bytes | None = b""
            while more is not None:
                more, told = await self._link.run(home, scripts.SCAN, at, self._time(), wanted, least, more, _PAGE)
                for name, value, left in zip(told[::3], told[1::3], told[2::3], strict=True):
                    key = name.decode()
                    if (entry := await self._entry(key, value, left)) is not None:
                        yield key, entry

    async def usage(self) -> CacheUsage:
        """Return how full it is; what Redis evicted counts until it would have been over."""
        home = await self._home()
        entries = size = 0
        for at in self._parts(home):
            more, kept, taken = 1, 0, 0
            while more:
                more, kept, taken = await self._link.run(home, scripts.USAGE, at, self._time(), _MOST_AT_ONCE)
            entries, size = entries + kept, size + taken
        return CacheUsage(entries, size)

    async def close(self) -> None:
        """Close the running loop's connections; the entries stay, and a later use connects again."""
        await self._link.close()

    def listen(self, forget: Callable[[str | None], None]) -> None:
        """Call `forget` with each key whose entry another process removed or replaced; None: any may be gone."""
        self._forget.append(forget)

    def in_touch(self) -> bool:
        """Return whether the running loop hears what others do; it begins to with the first use after `listen`."""
        home = self._link.here()
        return home is not None and home.hearing is not None and home.hearing.in_touch

    async def lease(self, key: str, seconds: float) -> Lease | None:
        """Take the lease on a key for so many seconds of the server's time; None where somebody holds it."""
        home = await self._home()
        name, owner = self._lease(home, key), secrets.token_hex(16)
        if await self._link.send(home, "SET", name, owner, "NX", "PX", milliseconds(seconds)) is None:
            return None
        return OwnLease(self._link, name, owner=owner, channel=self._channel, key=key)

    async def released(self, key: str, timeout: float) -> bool:  # noqa: ASYNC109 - the caller's patience
        """Wait until nobody holds the lease on a key; returns False when `timeout` seconds have passed before."""
        home = await self._home()
        hearing = self._hearing(home)
        until = self._clock.now() + timeout
        with hearing.waiting(key) as given_back:
            while (rest := await self._link.run(home, scripts.AWAIT, self._lease(home, key))) >= 0:
                patience = until - self._clock.now()
                if patience <= 0:
                    return False
                look = (_POLL_IN_TOUCH if hearing.in_touch else _POLL) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
                with suppress(TimeoutError):
                    async with self._clock.timeout(min((rest + 1) / 1000, look, patience)):
                        await given_back.wait()
                        if hearing.in_touch:
                            return True
                        given_back.clear()  # what would tell was lost, so it is looked for
        return True

    async def _home(self) -> Home:
        home = self._link.here() or await self._link.home()
        if self._forget and home.hearing is None:
            self._hearing(home)
        return home

    def _hearing(self, home: Home) -> Hearing:
        if home.hearing is None:
            home.hearing = Hearing(self._driver.channel, self._channel, sender=home.sender, told=self._told)
        return home.hearing

    def _told(self, key: str | None) -> None:
        for forget in self._forget:
            forget(key)

    async def _change(self, home: Home, script: Script, at: str, *args: str | bytes | int) -> Any:  # noqa: ANN401 - its answer
        return await self._link.run(home, script, at, self._time(), self._channel, home.sender, *args)

    async def _entry(self, key: str, data: bytes, left: int) -> CacheEntry | None:
        try:
            value, ttl, tags = decode(data, most=self._max_bytes)
        except ValueError:  # put there by something else, or by another version
            await self.delete(key)
            return None
        return CacheEntry(value, max(0.0, ttl - left / _SECOND), ttl, tags)

    def _time(self) -> str | int:
        return "" if self._wall is None else _micro(self._wall())

    def _at(self, home: Home, key: str) -> str:
        return self._part(crc32(key.encode()) % _SHARDS if home.cluster else 0)

    def _parts(self, home: Home) -> list[str]:
        return [self._part(number) for number in range(_SHARDS if home.cluster else 1)]

    def _part(self, number: int) -> str:
        return f"{{{self._prefix}:{number}}}"

    def _lease(self, home: Home, key: str) -> str:
        return f"{self._at(home, key)}:lease:{key}"


class _Driver:
    """The package `redis`, and an address that it does not show."""

    def __init__(self, url: str) -> None:
        try:
            import redis
            from redis import asyncio, exceptions
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as error:
            raise LLMConfigurationError(
                "the Redis cache needs a package that is not installed; type: pip install 'llm-manifold[redis]'"
            ) from error
        self._redis = asyncio
        self._errors = exceptions
        self._url = Secret(url)
        self._options: dict[str, Any] = {
            "socket_connect_timeout": _CONNECT,
            "socket_timeout": None,  # the link has one for all that a command needs
            "retry": Retry(NoBackoff(), 0),  # an answer that does not come in time is not worth waiting for twice
            # Its name and version are told to no server: it reads a file for them, for each connection.
            **({"driver_info": None} if hasattr(redis, "driver_info") else {"lib_name": None, "lib_version": None}),
            "protocol": 2,  # the one that all servers and versions of the package have
        }
        with suppress(ValueError):
            self._plain()
            self.name: str = _shown(url)
            return
        raise LLMConfigurationError(
            "cache.url is no address of a Redis; expected redis://host:6379/0, rediss://… for TLS, or unix:///path"
        )

    async def open(self) -> tuple[Client, bool]:
        client = self._plain()
        try:
            info = await client.execute_command("INFO", "cluster")
        except BaseException:
            await client.aclose()
            raise
        if not info.get("cluster_enabled"):
            return client, False
        await client.aclose()
        return self._redis.RedisCluster.from_url(self._url.reveal(), **self._options), True

    def channel(self) -> Channel:
        # On a cluster too: each of its servers passes on what is said on any.
        return _Channel(self._plain())

    def refused(self, error: Exception) -> bool:
        return isinstance(error, self._errors.ResponseError)

    def unknown(self, error: Exception) -> bool:
        return isinstance(error, self._errors.NoScriptError)

    def told(self, error: Exception) -> str:
        """Return what the error says, without the address's password, should a server or proxy repeat it."""
        said = str(error) or "no answer in time"
        for secret in _secrets(self._url.reveal()):
            said = said.replace(secret, MASK)
        return f"{type(error).__name__}: {redact(said)}"

    def _plain(self) -> Redis:
        return self._redis.Redis.from_url(self._url.reveal(), **self._options)


class _Channel:
    """A connection that listens, and the client that it belongs to."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._heard = client.pubsub()
        self.subscribe = self._heard.subscribe
        self.get_message = self._heard.get_message
        self.ping = self._heard.ping

    async def aclose(self) -> None:
        await self._heard.aclose()
        await self._client.aclose()


def _micro(seconds: float) -> int:
    return math.ceil(seconds * _SECOND)


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return (
        f"Redis at {parts.path}"
        if parts.scheme == "unix"
        else f"Redis at {parts.hostname or 'localhost'}:{parts.port or 6379}"
    )


def _secrets(url: str) -> list[str]:
    parts = urlsplit(url)
    found = [parts.password or "", *parse_qs(parts.query).get("password", ())]
    return [each for text in found if text for each in (text, unquote(text))]
