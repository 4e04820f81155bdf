"""Packed answers, unpacked a piece at a time, so that a few bytes never fill the memory."""

from __future__ import annotations

import zlib
from typing import Final

PIECE: Final = 256 * 1024
"""Bytes that one step unpacks at most."""

_KINDS: Final = frozenset({b"gzip", b"deflate"})
_GZIP: Final = 16 + zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS
_ZLIB_METHOD: Final = 8


class PackingError(ValueError):
    """The bytes are not packed as they are said to be; the message says why."""


class Unpacker:
    """Takes packed bytes cut anywhere, and gives them back unpacked."""

    __slots__ = ("_inner", "_kind", "_more", "_rest")

    def __init__(self, encoding: bytes) -> None:
        """Unpack `gzip` or `deflate`, the encodings that we say we take; with any other, the first step fails."""
        self._kind = encoding
        self._inner: zlib._Decompress | None = None  # pyright: ignore[reportPrivateUsage]  # it has no public name
        self._more = False  # the last step was full, so zlib may hold more, whatever it was given
        self._rest = b""

    @property
    def waiting(self) -> bool:
        """Whether bytes wait to be unpacked."""
        return self._more or bool(self._rest)

    @property
    def whole(self) -> bool:
        """Whether what came is unpacked and ends where it should; nothing at all is whole."""
        return not self.waiting and (self._inner is None or self._inner.eof)

    def take(self, data: bytes) -> None:
        """Add packed bytes."""
        self._rest += data

    def step(self) -> bytes:
        """Return the next bytes, `PIECE` at most; empty when more packed ones are needed.

        Raises:
            PackingError: They are no such thing, or packed in a way that was not asked for.
        """
        if self._kind not in _KINDS:
            raise PackingError(f"it is packed by {self._kind[:40].decode('latin-1')!r}, which was not asked for")
        while self.waiting:
            if self._inner is None or self._inner.eof:
                self._inner = zlib.decompressobj(self._window())  # packed parts may follow one another
            try:
                data = self._inner.decompress(self._rest, PIECE)
            except zlib.error:
                kind = self._kind.decode("ascii")
            else:
                self._rest = self._inner.unconsumed_tail or self._inner.unused_data
                self._more = len(data) == PIECE and not self._inner.eof
                if data:
                    return data
                continue
            raise PackingError(f"what came is not {kind}")
        return b""

    def _window(self) -> int:
        if self._kind != b"deflate":
            return _GZIP
        # Source: RFC 9110, section 8.4.1.2: deflate is zlib's format, but some send it without zlib's head.
        return zlib.MAX_WBITS if self._rest[0] & 0x0F == _ZLIB_METHOD else _RAW


def unpacker_for(encoding: bytes) -> Unpacker | None:
    """Return what unpacks a body of this `Content-Encoding`; None where it is not packed."""
    kind = encoding.strip().lower().removeprefix(b"x-")
    return None if kind in {b"", b"identity"} else Unpacker(kind)
