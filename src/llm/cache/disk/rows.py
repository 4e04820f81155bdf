"""An entry as a row: its number, and a sum over all of it, so that damage is never taken for an answer."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import orjson

from llm.cache.base import CacheEntry
from llm.cache.packing import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable

COLUMNS = "id, key, put_at, ttl, tags, sum, value"
_SUM_BYTES = 8


class Row(NamedTuple):
    """What the table holds of one entry, in the order of its insertion.

    Attributes:
        id: The row's number, which follows from the key.
        key: The key.
        put_at: When it was put, in seconds since 1970.
        over_at: When it ends, in seconds since 1970.
        ttl: Seconds that it may be used.
        size: Bytes of the packed value, without the one that names its form.
        tags: JSON list of its tags.
        sum: Checksum over all of it.
        value: The packed value.
    """

    id: int
    key: str
    put_at: float
    over_at: float
    ttl: float
    size: int
    tags: str
    sum: bytes
    value: bytes


class Kept(NamedTuple):
    """An entry that was read and found whole; when it was put is in seconds since 1970."""

    key: str
    value: bytes
    put_at: float
    ttl: float
    tags: tuple[str, ...]

    def entry(self, now: float) -> CacheEntry:
        """Return it as it is at `now`; a clock that was set back makes no negative age."""
        return CacheEntry(self.value, max(0.0, now - self.put_at), self.ttl, self.tags)


def number_of(key: str) -> int:
    """Return the number of the key's row, so that a key is looked up, and comes in a scan, once.

    Two keys with one number (among a million, one chance in twenty-five million) replace each other.

    Raises:
        ValueError: The key holds half of a surrogate pair.
    """
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)


def names_of(tags: Iterable[str]) -> str:
    """Return tags as they are kept.

    Raises:
        TypeError: One of them is no text, or has no UTF-8 form.
    """
    return orjson.dumps(tuple(tags)).decode()


def tags_of(names: str | bytes) -> tuple[str, ...]:
    """Read tags back.

    Raises:
        ValueError: It is no list.
    """
    return tuple(map(str, orjson.loads(names)))


def make(key: str, value: bytes, *, put_at: float, ttl: float, tags: str) -> Row:
    """Return the row of an entry."""
    packed = pack(value)
    seal = _sum(key.encode(), put_at, ttl, tags.encode(), packed)
    return Row(number_of(key), key, put_at, put_at + ttl, ttl, len(packed) - 1, tags, seal, packed)


def read(row: tuple[object, ...], *, most: int) -> Kept | None:
    """Read what `COLUMNS` names, text as bytes; None where it is damaged, planted, or larger than `most` bytes."""
    number, key, put_at, ttl, tags, seal, packed = row
    if not (isinstance(key, bytes) and isinstance(put_at, float) and isinstance(ttl, float)):
        return None
    if not (isinstance(tags, bytes) and isinstance(packed, bytes)) or seal != _sum(key, put_at, ttl, tags, packed):
        return None
    try:
        name = key.decode()
        kept = Kept(name, unpack(packed, most=most), put_at, ttl, tags_of(tags))
    except (ValueError, TypeError):
        return None
    return kept if number == number_of(name) else None


def _sum(key: bytes, put_at: float, ttl: float, tags: bytes, packed: bytes) -> bytes:
    seal = blake2b(struct.pack("<ddqq", put_at, ttl, len(key), len(tags)), digest_size=_SUM_BYTES)
    for part in (key, tags, packed):
        seal.update(part)
    return seal.digest()
