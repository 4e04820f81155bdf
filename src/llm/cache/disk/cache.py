"""A cache in a folder, for many processes."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from llm.utils.clock import SystemClock

from .file import Connection, Place
from .notice import Notice
from .reading import Reader
from .rows import make, names_of, number_of, tags_of
from .worker import Worker
from .writing import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from llm.cache.base import CacheEntry, CacheUsage
    from llm.utils.clock import Clock

    from .rows import Row

_MOST_USES: Final = 8192  # that are remembered until they are written
_WRITE_USES: Final = 2048  # from which on they are written, also when nothing else is
_WRITE_USES_AFTER: Final = 30.0  # seconds


class DiskCache:
    """A `CacheBackend` in a folder, used by any number of processes at once: what one puts, the others have.

    It is bounded by entries and by the bytes of their values as they are kept (compressed, where that helps); the least
    recently used go first. A file that is damaged, or somebody else's, is renamed and a new one is begun; a row that is
    damaged is removed. Each method raises `OSError` where the file cannot be used now, after a quarter of a second at
    most, and `RuntimeError` after `close`. Safe to use from several loops and threads.

    It is `Invalidating` too: processes of one machine tell each other of what they remove or replace.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_entries: int = 10_000,
        max_bytes: int = 268_435_456,
        clock: Clock | None = None,
    ) -> None:
        """Take the folder; nothing is opened before something is asked.

        Args:
            path: The folder, made for the owner alone where it is missing; `~` is the home folder.
            max_entries: Most entries at once, 1 or more.
            max_bytes: Most bytes of all values together, 1 or more.
            clock: Its time; the machine's by default. Ages are differences of its wall time.

        Raises:
            ValueError: A bound is below 1.
        """
        if max_entries < 1 or max_bytes < 1:
            raise ValueError(f"max_entries is {max_entries} and max_bytes {max_bytes}; expected 1 or more of each")
        self._max_bytes = max_bytes
        self._clock = clock or SystemClock()
        self._place = place = Place(os.fspath(path), self._clock)
        used: deque[int] = deque(maxlen=_MOST_USES)
        writer = Writer(Connection(place), max_entries=max_entries, max_bytes=max_bytes, clock=self._clock, used=used)
        self._writer = Worker("llm-cache-writer", writer)
        self._uses = _Uses(used, self._writer, self._clock)
        reader = Reader(
            Connection(place),
            most=max_bytes,
            clock=self._clock,
            used=self._uses.note,
            damaged=partial(_repair, self._writer),
        )
        self._reader = Worker("llm-cache-reader", reader)
        self._notice = Notice(place, self._clock)

    def listen(self, forget: Callable[[str | None], None]) -> None:
        """Call `forget` with None, at the next `in_touch`, when another process removed or replaced something."""
        self._notice.listen(forget)

    def in_touch(self) -> bool:
        """Return whether nothing was removed or replaced since it was last asked; False once where something was."""
        return self._notice.in_touch()

    async def get(self, key: str) -> CacheEntry | None:
        """Return what is under the key; None where nothing is."""
        return await self._reader.ask(partial(Reader.get, key=key), [number_of(key)])

    async def get_many(self, keys: Iterable[str]) -> dict[str, CacheEntry]:
        """Return what is there of several keys."""
        wanted = list(keys)
        if self._notice.wanted:
            await self._reader.ask(lambda _: self._notice.open())
        return await self._reader.ask(partial(Reader.get_many, keys=wanted), map(number_of, wanted))

    async def put(self, key: str, value: bytes, *, ttl: float, tags: Iterable[str] = ()) -> None:
        """Keep the value for `ttl` seconds, in place of what was under the key; zero or less removes that."""
        number, value, names = number_of(key), bytes(value), names_of(tags)
        if ttl > 0 and len(value) <= self._max_bytes:
            put_at = self._clock.wall()
            row = partial(make, key, value, put_at=put_at, ttl=ttl, tags=names)
            work = partial(_replace, number=number, row=row)
        else:
            work = partial(Writer.delete, number=number)
        if await self._writer.ask(work):
            await self._tell()

    async def exists(self, key: str) -> bool:
        """Return whether something is under the key; does not count as a use, and makes no file."""
        if await asyncio.to_thread(self._place.identity) is None:
            return False
        return await self._reader.ask(partial(Reader.exists, key=key), [number_of(key)])

    async def delete(self, key: str) -> bool:
        """Remove what is under the key; returns whether something was."""
        removed = await self._writer.ask(partial(Writer.delete, number=number_of(key)))
        if removed:
            await self._tell()
        return removed

    async def clear(self) -> None:
        """Remove everything, and give the room on the disk back."""
        await self._writer.ask(Writer.clear)
        await self._tell()

    async def remove(self, *, tags: Iterable[str] = (), older_than: float = 0.0) -> int:
        """Remove the entries that carry all of these tags and are at least so many seconds old; returns how many."""
        work = partial(Writer.remove, tags=tags_of(names_of(tags)), older_than=float(older_than))
        removed = await self._writer.ask(work)
        if removed:
            await self._tell()
        return removed

    async def scan(self, *, tags: Iterable[str] = (), older_than: float = 0.0) -> AsyncIterator[tuple[str, CacheEntry]]:
        """Return keys and entries that carry all of these tags and are at least so many seconds old, in no order."""
        names, after = tags_of(names_of(tags)), None
        while True:
            page = await self._reader.ask(partial(Reader.page, after=after, tags=names, older_than=float(older_than)))
            for found in page.entries:
                yield found
            after = page.last
            if after is None:
                return

    async def usage(self) -> CacheUsage:
        """Return how full it is."""
        return await self._reader.ask(Reader.usage)

    async def close(self) -> None:
        """End what runs, when it has done what it was asked to do."""
        await self._reader.end(self._clock)
        self._uses.write()
        await self._writer.end(self._clock)
        self._notice.close()

    async def _tell(self) -> None:
        # A step of its own: what is asked together is done in one transaction, and this is to follow that.
        await self._writer.ask(lambda _: self._notice.tell())


class _Uses:
    """Which rows were used, to be written in batches."""

    def __init__(self, used: deque[int], writer: Worker[Writer], clock: Clock) -> None:
        self._used = used
        self._writer = writer
        self._now = clock.now
        self._written_at = clock.now()

    def note(self, numbers: list[int]) -> None:
        self._used.extend(numbers)
        if len(self._used) >= _WRITE_USES or self._now() - self._written_at >= _WRITE_USES_AFTER:
            self.write()

    def write(self) -> None:
        self._written_at = self._now()
        if self._used:
            self._writer.post(Writer.note_uses)


def _replace(writer: Writer, *, number: int, row: Callable[[], Row]) -> bool:
    """Put a row; returns whether that took the place of another."""
    replaced = writer.delete(number)
    writer.put(row())
    return replaced


def _repair(writer: Worker[Writer], number: int) -> None:
    writer.post(partial(Writer.drop, number=number))
