"""A cache in this process."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from cachetools import LRUCache

from llm.utils.clock import SystemClock

from .base import CacheEntry, CacheUsage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from llm.utils.clock import Clock


@dataclass(slots=True)
class _Kept:
    value: bytes
    put_at: float
    over_at: float
    ttl: float
    tags: tuple[str, ...]

    def entry(self, now: float) -> CacheEntry:
        return CacheEntry(self.value, now - self.put_at, self.ttl, self.tags)


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
        # `TLRUCache` would know of ends too, but a look takes it three times as long.
        self._kept: LRUCache[str, _Kept] = LRUCache(max_bytes, getsizeof=_size)
        self._ends: list[tuple[float, str]] = []  # a heap of when entries are over; those that went before, too

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
        now = self._now()
        return kept.entry(now) if now < kept.over_at else None

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
            if entry.age >= entry.ttl or entry.size > self._max_bytes:
                return
            now = self._now()
            self._sweep(now)
            while len(self._kept) >= self._max_entries:
                self._kept.popitem()
            put_at = now - entry.age
            self._kept[key] = kept = _Kept(entry.value, put_at, put_at + entry.ttl, entry.ttl, entry.tags)
            heappush(self._ends, (kept.over_at, key))

    async def exists(self, key: str) -> bool:
        """Return whether something is under the key; does not count as a use."""
        return self._is_there(key)

    async def delete(self, key: str) -> bool:
        """Remove what is under the key; returns whether something was."""
        with self._lock:
            was_there = self._is_there(key)
            self._kept.pop(key, None)
        return was_there

    def forget(self, key: str | None) -> None:
        """Remove what is under the key, or everything for None, without a coroutine."""
        with self._lock:
            if key is not None:
                self._kept.pop(key, None)
                return
            self._kept.clear()
            self._ends.clear()

    async def clear(self) -> None:
        """Remove everything."""
        self.forget(None)

    async def remove(self, *, tags: Iterable[str] = (), older_than: float = 0.0) -> int:
        """Remove the entries that carry all of these tags and are at least so many seconds old; returns how many."""
        with self._lock:
            found = self._found(tags, older_than)
            for key, _ in found:
                self._kept.pop(key, None)
        return len(found)

    async def scan(self, *, tags: Iterable[str] = (), older_than: float = 0.0) -> AsyncIterator[tuple[str, CacheEntry]]:
        """Return keys and entries that carry all of these tags and are at least so many seconds old, in no order."""
        for key, entry in self._found(tags, older_than):
            if self._is_there(key):
                yield key, entry

    async def usage(self) -> CacheUsage:
        """Return how full it is."""
        with self._lock:
            self._sweep(self._now())
            return self.held()

    def held(self) -> CacheUsage:
        """Return how full it is, at once and in any thread; what is over and not swept yet is among it."""
        return CacheUsage(len(self._kept), int(self._kept.currsize))

    async def close(self) -> None:
        """Remove everything; it is empty afterwards, and still works."""
        self.forget(None)

    def _is_there(self, key: str) -> bool:
        kept = self._unused(key)
        return kept is not None and self._now() < kept.over_at

    def _unused(self, key: str) -> _Kept | None:
        try:
            return super(LRUCache, self._kept).__getitem__(key)  # which does not count as a use
        except KeyError:
            return None

    def _sweep(self, now: float) -> None:
        """Drop what is over, so that nothing goes for want of room that it takes."""
        if len(self._ends) > 2 * len(self._kept):  # most are of entries that went before
            self._ends = [(kept.over_at, key) for key, kept in self._all()]
            heapify(self._ends)
        while self._ends and self._ends[0][0] <= now:
            _, key = heappop(self._ends)
            kept = self._unused(key)
            if kept is not None and kept.over_at <= now:  # else it was put anew
                del self._kept[key]

    def _all(self) -> list[tuple[str, _Kept]]:
        # The keys first, for a list of them cannot wake the collector, and so nothing changes while it is made.
        return [(key, kept) for key in list(self._kept) if (kept := self._unused(key)) is not None]

    def _found(self, tags: Iterable[str], older_than: float) -> list[tuple[str, CacheEntry]]:
        wanted = frozenset(tags)
        with self._lock:
            now = self._now()
            self._sweep(now)
            kept = self._all()
        return [
            (key, each.entry(now))
            for key, each in kept
            if wanted.issubset(each.tags) and now - each.put_at >= older_than
        ]


def _size(kept: _Kept) -> int:
    return len(kept.value)
