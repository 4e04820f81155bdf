"""What a cache is: bytes under a key, and their age."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable


class CacheEntry(NamedTuple):
    """What was put under a key.

    Attributes:
        value: The bytes, as they were put.
        age: Seconds since then.
        ttl: Seconds that it may be used, from then on.
        tags: Names by which it can be found and removed together with others.
    """

    value: bytes
    age: float
    ttl: float
    tags: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return len(self.value)


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """How full a cache is.

    Attributes:
        entries: How many entries there are.
        bytes: Bytes that their values take, as they are kept.
    """

    entries: int
    bytes: int


@runtime_checkable
class CacheBackend(Protocol):
    """A bounded store of bytes with a time to live.

    Any method may raise: whoever calls it counts that, and goes on without the cache. An entry that is over is not
    there, for every method. What does not fit is not kept.
    """

    async def get(self, key: str) -> CacheEntry | None:
        """Return what is under the key; None where nothing is."""
        ...

    async def get_many(self, keys: Iterable[str]) -> dict[str, CacheEntry]:
        """Return what is there of several keys, in one round trip where that is one."""
        ...

    async def put(self, key: str, value: bytes, *, ttl: float, tags: Iterable[str] = ()) -> None:
        """Keep the value for `ttl` seconds, in place of what was under the key; zero or less removes that."""
        ...

    async def exists(self, key: str) -> bool:
        """Return whether something is under the key."""
        ...

    async def delete(self, key: str) -> bool:
        """Remove what is under the key; returns whether something was."""
        ...

    async def clear(self) -> None:
        """Remove everything."""
        ...

    async def remove(self, *, tags: Iterable[str] = (), older_than: float = 0.0) -> int:
        """Remove the entries that carry all of these tags and are at least so many seconds old; returns how many."""
        ...

    def scan(self, *, tags: Iterable[str] = (), older_than: float = 0.0) -> AsyncIterator[tuple[str, CacheEntry]]:
        """Return keys and entries that carry all of these tags and are at least so many seconds old, in no order.

        What is put or removed meanwhile may or may not be among them; none comes twice. It does not count as a use.
        """
        ...

    async def usage(self) -> CacheUsage:
        """Return how full it is."""
        ...

    async def close(self) -> None:
        """Give back what the backend holds; as often as one likes."""
        ...


@runtime_checkable
class Peeking(Protocol):
    """A backend that can say at once, without waiting for anything, what is under a key."""

    def peek(self, key: str) -> CacheEntry | None:
        """Return what is under the key; None where nothing is."""
        ...


@runtime_checkable
class Invalidating(Protocol):
    """A backend that several processes share, and that tells each what the others took out of it or replaced."""

    def listen(self, forget: Callable[[str | None], None]) -> None:
        """Call `forget`, on the loop that uses the backend, with each key whose entry others removed or replaced.

        None means that any entry may be gone: many were removed, or something may have been missed.
        """
        ...

    def in_touch(self) -> bool:
        """Return whether all that others did, but for what is on its way, was told; costs next to nothing.

        While it is False, nothing that was read before may be used. It is asked before each use of what was read, so a
        store that has no messages can look here at a count of removals that it keeps, and call `forget(None)` where
        that has moved.
        """
        ...
