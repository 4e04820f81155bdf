"""Two caches as one: memory, and behind it what several processes share or what outlives this one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from .base import CacheEntry, Invalidating
from .lease import Leasing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Generator, Iterable

    from .base import CacheBackend, CacheUsage
    from .lease import Lease
    from .memory import InMemoryCache


class TwoLevels:
    """A `CacheBackend` that looks near first, then far, and keeps near what it found there, with its age.

    The far one is the truth: what is put or removed goes to both, and what others remove or replace there is forgotten
    here (`Invalidating`). While that cannot be heard, the near one is empty and not asked. A far one that is not
    `Invalidating` must be this process's own.

    How long another process may still answer from memory with what was removed: until it has heard of it, which takes
    about as long as one round trip; where its connection is lost without a sign, until it has noticed that.
    """

    def __init__(self, near: InMemoryCache, far: CacheBackend) -> None:
        """Put one before the other.

        Args:
            near: In this process; nothing else uses it.
            far: The one that counts.
        """
        self._near = near
        self._far = far
        self._told = far if isinstance(far, Invalidating) else None
        self._under_way: dict[
            str, object
        ] = {}  # the last that reads or writes a key; none where it was forgotten since
        if self._told is not None:
            self._told.listen(self._forget)
        if isinstance(far, Leasing):  # only then is this `Leasing` too
            self.lease: Callable[[str, float], Awaitable[Lease | None]] = far.lease
            self.released: Callable[[str, float], Awaitable[bool]] = far.released

    def peek(self, key: str) -> CacheEntry | None:
        """Return what is near under the key, without waiting for anything."""
        return self._near.peek(key) if self._hears() else None

    async def get(self, key: str) -> CacheEntry | None:
        """Return what is under the key; None where nothing is."""
        if (entry := self.peek(key)) is not None:
            return entry
        return (await self._fetch((key,))).get(key)

    async def get_many(self, keys: Iterable[str]) -> dict[str, CacheEntry]:
        """Return what is there of several keys."""
        looked = {key: self.peek(key) for key in keys}
        found = {key: entry for key, entry in looked.items() if entry is not None}
        if missing := looked.keys() - found.keys():
            found |= await self._fetch(missing)
        return found

    async def put(self, key: str, value: bytes, *, ttl: float, tags: Iterable[str] = ()) -> None:
        """Keep the value for `ttl` seconds in both, in place of what was under the key; zero or less removes that."""
        names = tuple(tags)
        self._forget(key)
        alone = False
        with self._noted((key,)) as still:
            try:
                await self._far.put(key, value, ttl=ttl, tags=names)
                alone = self._hears() and still(key)
            finally:
                self._forget(key)  # once more, for what was read meanwhile
        if alone:
            self._near.hold(key, CacheEntry(value, 0.0, ttl, names))

    async def exists(self, key: str) -> bool:
        """Return whether something is under the key; does not count as a use."""
        return self.peek(key) is not None or await self._far.exists(key)

    async def delete(self, key: str) -> bool:
        """Remove what is under the key; returns whether something was."""
        self._forget(key)
        try:
            return await self._far.delete(key)
        finally:  # once more, for what was read meanwhile
            self._forget(key)

    async def clear(self) -> None:
        """Remove everything."""
        self._forget(None)
        try:
            await self._far.clear()
        finally:
            self._forget(None)

    async def remove(self, *, tags: Iterable[str] = (), older_than: float = 0.0) -> int:
        """Remove the entries that carry all of these tags and are at least so many seconds old; returns how many."""
        self._forget(None)
        try:
            return await self._far.remove(tags=tags, older_than=older_than)
        finally:
            self._forget(None)

    def scan(self, *, tags: Iterable[str] = (), older_than: float = 0.0) -> AsyncIterator[tuple[str, CacheEntry]]:
        """Return keys and entries that carry all of these tags and are at least so many seconds old, in no order."""
        return self._far.scan(tags=tags, older_than=older_than)

    async def usage(self) -> CacheUsage:
        """Return how full the far one is, which has all."""
        return await self._far.usage()

    async def close(self) -> None:
        """Empty the near one and close the far one."""
        await self._near.close()
        await self._far.close()

    async def _fetch(self, keys: Collection[str]) -> dict[str, CacheEntry]:
        with self._noted(keys) as still:
            found = await self._far.get_many(keys)
            if self._hears():
                for key in filter(still, found):
                    self._near.hold(key, found[key])
        return found

    def _hears(self) -> bool:
        """Return whether what others do is told; what is held while it is not would stay when it is again."""
        return self._told is None or self._told.in_touch()

    @contextmanager
    def _noted(self, keys: Collection[str]) -> Generator[Callable[[str], bool]]:
        """Say of a key, within the block, whether what was read or written since its start holds still."""
        mark = object()
        self._under_way.update(dict.fromkeys(keys, mark))
        try:
            yield lambda key: self._under_way.get(key) is mark
        finally:
            for key in keys:
                if self._under_way.get(key) is mark:
                    del self._under_way[key]

    def _forget(self, key: str | None) -> None:
        if key is None:
            self._under_way.clear()
        else:
            self._under_way.pop(key, None)
        self._near.forget(key)
