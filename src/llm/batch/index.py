"""Names by the hundred million, in a few bytes each."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from .slots import Slots, digester

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DIGEST: Final = 11  # bytes
_SLOT: Final = _DIGEST + 1  # the digest, then the marks
_SLOTS: Final = 512  # of the smallest shard
_SHARDS: Final = 16  # to begin with
_PATH_END: Final = 7  # where its last byte is in a digest
_HEADS: Final = Struct(f">I{_SLOT - 4}x")

_parts: Callable[[bytes], tuple[int, int]] = Struct(">II").unpack_from  # of a digest: where in its shard; which shard


class IdIndex:
    """A set of names with marks on each, in about 21 bytes a name: at most 32, also while it grows.

    It keeps no name but 88 bits of its keyed BLAKE2b digest, so it can take a name for another: with a million names
    the odds that it does so once are one in 600 million million, with a thousand million names one in 600 million.

    Shards of open addressing hold the digests. One that is full is split in two, by itself. Their sizes lie evenly
    between one and two times the smallest, so that at any time some are nearly full and others just split: the memory a
    name stays the same, and nobody waits for more than one split, about a millisecond.
    """

    def __init__(self, digest: Callable[[str | int], bytes] | None = None) -> None:
        """Begin empty, in 150 KB.

        Args:
            digest: What makes 11 bytes of a name; a keyed hash of its own by default.
        """
        self._digest = digest or digester(_DIGEST)
        self._count = 0
        self._mask = _SHARDS - 1  # so many shards but one are in the list, some of them several times
        depth = self._mask.bit_length()
        self._shards = [_Shard(round(_SLOTS * 2 ** (n / _SHARDS)), depth) for n in range(_SHARDS)]

    def mark(self, name: str | int, marks: int) -> int:
        """Set marks on a name, which is then in the index; returns those that it had, 0 where it was not there.

        Args:
            name: A text, or a number; these are different names also where they look alike.
            marks: Bits of 1 to 255.
        """
        digest = self._digest(name)
        head, path = _parts(digest)
        while True:
            shard = self._shards[path & self._mask]
            at, table = shard.find(digest, head), shard.table
            if before := table[at + _DIGEST]:
                table[at + _DIGEST] = before | marks
                return before
            if shard.used < shard.limit:
                break
            self._split(shard, path)
        table[at : at + _DIGEST] = digest
        table[at + _DIGEST] = marks
        shard.used += 1
        self._count += 1
        return 0

    def add(self, name: str | int) -> bool:
        """Add a name; returns whether it is new."""
        return not self.mark(name, 1)

    def __contains__(self, name: str | int) -> bool:
        """Return whether the name is there."""
        digest = self._digest(name)
        head, path = _parts(digest)
        shard = self._shards[path & self._mask]
        return shard.table[shard.find(digest, head) + _DIGEST] != 0

    def __len__(self) -> int:
        """Return how many names are there."""
        return self._count

    def _split(self, shard: _Shard, path: int) -> None:
        bit = 1 << shard.depth
        if bit > self._mask:
            self._shards *= 2
            self._mask = self._mask * 2 + 1
        byte, its_bit = _PATH_END - shard.depth // 8, 1 << shard.depth % 8
        entries = shard.entries()
        halves = (
            _Shard(shard.slots, shard.depth + 1, [entry for entry in entries if not entry[byte] & its_bit]),
            _Shard(shard.slots, shard.depth + 1, [entry for entry in entries if entry[byte] & its_bit]),
        )
        for place in range(path & (bit - 1), len(self._shards), bit):
            self._shards[place] = halves[place & bit != 0]


class _Shard(Slots):
    __slots__ = ("depth", "limit", "used")

    def __init__(self, slots: int, depth: int, entries: Sequence[bytes] = ()) -> None:
        """Take entries in the order of their homes."""
        super().__init__(slots, _SLOT)
        self.limit = slots * 7 // 8
        self.used = len(entries)
        self.depth = depth  # how many bits of a path lead here
        at = 0
        for entry, (head,) in zip(entries, _HEADS.iter_unpack(b"".join(entries)), strict=True):
            home = (head * slots >> 32) * _SLOT
            if home > at:
                at = home
            elif at == len(self.table):
                self.extend()
            self.table[at : at + _SLOT] = entry
            at += _SLOT

    def entries(self) -> list[bytes]:
        """Return what the slots hold, in the order of their homes."""
        table = bytes(self.table)
        return sorted([table[at : at + _SLOT] for at in range(0, len(table), _SLOT) if table[at + _DIGEST]])
