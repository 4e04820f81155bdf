"""A cache in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cachetools import TLRUCache

from llm.utils.clock import SystemClock

from .base import CacheEntry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm.utils.clock import Clock


class _Kept(NamedTuple):
    value: bytes
    put_at: float
    ttl: float
    tags: tuple[str, ...]


class InMemoryCache:
    """A `CacheBackend` in this process: the least recently used entries go first when it is full.

    It is bounded by entries and by the bytes of their values; a value larger than the whole cache is not kept. No
    method waits for anything, and none is safe to call from another thread.
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
        self._kept: TLRUCache[str, _Kept] = TLRUCache(max_bytes, _over_at, timer=self._now, getsizeof=_size)

    @property
    def entries(self) -> int:
        """How many entries there are."""
        self._kept.expire()
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes of all values together."""
        self._kept.expire()
        return int(self._kept.currsize)

    async def get(self, key: str) -> CacheEntry | None:
        """Return what is under the key; None where nothing is."""
        return self.peek(key)

    def peek(self, key: str) -> CacheEntry | None:
        """Do what `get` does, without a coroutine."""
        try:  # cheaper than `get`, which looks twice
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
        self._kept.pop(key, None)
        if ttl <= 0 or len(value) > self._max_bytes:
            return
        self._kept.expire()
        while len(self._kept) >= self._max_entries:
            self._kept.popitem()
        self._kept[key] = _Kept(value, self._now(), ttl, tuple(tags))

    async def exists(self, key: str) -> bool:
        """Return whether something is under the key; does not count as a use."""
        return key in self._kept

    async def delete(self, key: str) -> bool:
        """Remove what is under the key; returns whether something was."""
        return self._kept.pop(key, None) is not None

    async def clear(self) -> None:
        """Remove everything."""
        self._kept.clear()

    async def close(self) -> None:
        """Remove everything; it is empty afterwards, and still works."""
        self._kept.clear()


def _over_at(_: str, kept: _Kept, now: float) -> float:
    return now + kept.ttl


def _size(kept: _Kept) -> int:
    return len(kept.value)
