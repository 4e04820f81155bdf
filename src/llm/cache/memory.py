"""A cache in this process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from cachetools import Cache, TLRUCache

from llm.utils.clock import SystemClock

from .base import CacheEntry, CacheUsage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from llm.utils.clock import Clock


class _Kept(NamedTuple):
    value: bytes
    put_at: float
    ttl: float
    tags: tuple[str, ...]


class InMemoryCache:
    """A `CacheBackend` in this process: the least recently used entries go first when it is full.

    It is bounded by entries and by the bytes of their values; a value larger than the whole cache is not kept. No
    method waits for anything, and managers of several event loops may share it, each in its thread.
    """

    def __init__(self, *, max_entries: int = 10_000, max_bytes: int = 268_435_456, clock: Clock | None = None) -> None:
        """Make an empty one.

        Args:
            max_entries: Most entries at once, 1 or more.
            max_bytes: Most bytes of all values together, 1 or more.
            clock: Its time; the machine's by default.

        Raises:
            ValueError: A bound is below 1.
        """
        if max_entries < 1 or max_bytes < 1:
            raise ValueError(f"max_entries is {max_entries} and max_bytes {max_bytes}; expected 1 or more of each")
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._now = (clock or SystemClock()).now
        self._lock = threading.RLock()  # reentrant: the collector may end a stream, and so come here, at any place
        self._kept: TLRUCache[str, _Kept] = TLRUCache(max_bytes, _over_at, timer=self._now, getsizeof=_size)

    async def get(self, key: str) -> CacheEntry | None:
        """Return what is under the key; None where nothing is."""
        return self.peek(key)

    def peek(self, key: str) -> CacheEntry | None:
        """Do what `get` does, without a coroutine."""
        try:  # cheaper than `get`, which looks twice
            with self._lock:
                kept = self._kept[key]
        except KeyError:
            return None
        return CacheEntry(kept.value, max(0.0, self._now() - kept.put_at), kept.ttl, kept.tags)

    async def get_many(self, keys: Iterable[str]) -> dict[str, CacheEntry]:
        """Return what is there of several keys."""
        found = {key: self.peek(key) for key in keys}
        return {key: entry for key, entry in found.items() if entry is not None}

    async def put(self, key: str, value: bytes, *, ttl: float, tags: Iterable[str] = ()) -> None:
        """Keep the value for `ttl` seconds, in place of what was under the key; zero or less removes that."""
        self.hold(key, CacheEntry(value, 0.0, ttl, tuple(tags)))

    def hold(self, key: str, entry: CacheEntry) -> None:
        """Do what `put` does, without a coroutine, with an entry that may have an age already."""
        with self._lock:
            self._kept.pop(key, None)
            if entry.age >= entry.ttl or len(entry.value) > self._max_bytes:
                return
            self._kept.expire()
            while len(self._kept) >= self._max_entries:
                self._kept.popitem()
            self._kept[key] = _Kept(entry.value, self._now() - entry.age, entry.ttl, entry.tags)

    async def exists(self, key: str) -> bool:
        """Return whether something is under the key; does not count as a use."""
        return key in self._kept

    async def delete(self, key: str) -> bool:
        """Remove what is under the key; returns whether something was."""
        with self._lock:
            return self._kept.pop(key, None) is not None

    def forget(self, key: str | None) -> None:
        """Remove what is under the key, or everything for None, without a coroutine."""
        with self._lock:
            if key is None:
                self._kept.clear()
            else:
                self._kept.pop(key, None)

    async def clear(self) -> None:
        """Remove everything."""
        self.forget(None)

    async def remove(self, *, tags: Iterable[str] = (), older_than: float = 0.0) -> int:
        """Remove the entries that carry all of these tags and are at least so many seconds old; returns how many."""
        with self._lock:
            found = [key for key, _ in self._found(tags, older_than)]
            for key in found:
                self._kept.pop(key, None)
        return len(found)

    async def scan(self, *, tags: Iterable[str] = (), older_than: float = 0.0) -> AsyncIterator[tuple[str, CacheEntry]]:
        """Return keys and entries that carry all of these tags and are at least so many seconds old, in no order."""
        for key, entry in self._found(tags, older_than):
            if key in self._kept:
                yield key, entry

    async def usage(self) -> CacheUsage:
        """Return how full it is."""
        with self._lock:
            self._kept.expire()
            return CacheUsage(len(self._kept), int(self._kept.currsize))

    def held(self) -> CacheUsage:
        """Return how full it is, at once and in any thread; what is over and not swept yet is among it."""
        entries: int = Cache.__len__(self._kept)  # pyright: ignore[reportUnknownMemberType] - of any cache
        return CacheUsage(entries, int(Cache.currsize.__get__(self._kept)))

    async def close(self) -> None:
        """Remove everything; it is empty afterwards, and still works."""
        self.forget(None)

    def _found(self, tags: Iterable[str], older_than: float) -> list[tuple[str, CacheEntry]]:
        now, wanted = self._now(), frozenset(tags)
        with self._lock:
            self._kept.expire()
            unused = super(TLRUCache, self._kept).__getitem__  # which does not count as a use
            kept = [(key, unused(key)) for key in self._kept]
        return [
            (key, CacheEntry(each.value, max(0.0, now - each.put_at), each.ttl, each.tags))
            for key, each in kept
            if wanted.issubset(each.tags) and now - each.put_at >= older_than
        ]


def _over_at(_: str, kept: _Kept, __: float) -> float:
    return kept.put_at + kept.ttl


def _size(kept: _Kept) -> int:
    return len(kept.value)
