"""An entry as one text of bytes: a head with its time to live and tags, and the value, packed."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import orjson

from .packing import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARK: Final = b"LC\1"  # whose it is, and the version of the form
_HEAD: Final = struct.Struct(">3sdI")  # the mark, seconds to live, bytes of the tags


class Record(NamedTuple):
    """What is kept of an entry, but for its age, which only the server knows.

    Attributes:
        value: The bytes, as they were put.
        ttl: Seconds that it may be used.
        tags: Its tags.
    """

    value: bytes
    ttl: float
    tags: tuple[str, ...]


def encode(value: bytes, ttl: float, tags: Sequence[str]) -> tuple[bytes, int]:
    """Return the entry as it is kept, and how many bytes of that are the value.

    Raises:
        TypeError: A tag has no UTF-8 form.
    """
    names, packed = orjson.dumps(tags), pack(value)
    return b"".join([_HEAD.pack(_MARK, ttl, len(names)), names, packed]), len(packed) - 1


def decode(data: bytes, *, most: int) -> Record:
    """Read it back; nothing in it is ever run.

    Args:
        data: What `encode` returned.
        most: Bytes that the value may have.

    Raises:
        ValueError: It is damaged, foreign, or of another version.
    """
    try:
        mark, ttl, length = _HEAD.unpack_from(data)
    except struct.error:
        raise ValueError("the entry has no head") from None
    if mark != _MARK:
        raise ValueError("the entry is foreign, or of another version")
    begin = _HEAD.size + length
    return Record(unpack(data[begin:], most=most), ttl, _tags(orjson.loads(data[_HEAD.size : begin])))


def _tags(kept: Any) -> tuple[str, ...]:  # noqa: ANN401 - JSON
    if isinstance(kept, list) and all(isinstance(tag, str) for tag in cast("list[object]", kept)):
        return tuple(cast("list[str]", kept))
    raise ValueError("the entry's tags are no list of texts")
