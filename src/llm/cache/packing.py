"""How values are kept outside this process: as they are, or compressed where that saves much."""

from __future__ import annotations

import zlib
from typing import Final

_PLAIN: Final = b"\0"
_ZLIB: Final = b"\1"
_LARGE: Final = 1024  # bytes, below which compressing costs more time than it saves room
_FAST: Final = 1


def pack(value: bytes) -> bytes:
    """Return the value as it is kept: a byte that names the form, and the value in that form."""
    if len(value) >= _LARGE:
        small = zlib.compress(value, _FAST)
        if len(small) < len(value):
            return _ZLIB + small
    return _PLAIN + value


def unpack(data: bytes, *, most: int) -> bytes:
    """Read it back.

    Args:
        data: What `pack` returned.
        most: Bytes that the value may have; more of them is damage, or malice.

    Raises:
        ValueError: It is damaged, too large, or in a form that this version does not know.
    """
    form, rest = data[:1], data[1:]
    if form == _PLAIN and len(rest) <= most:
        return rest
    if form != _ZLIB:
        raise ValueError("the entry is too large, or kept in a form that is not known")
    opened = zlib.decompressobj()
    try:
        value = opened.decompress(rest, most + 1)
    except zlib.error as error:
        raise ValueError(f"the entry cannot be unpacked: {error}") from None
    if len(value) > most or not opened.eof or opened.unused_data:
        raise ValueError("the entry is cut, too large, or followed by something else")
    return value
