"""A table of digests in one block of memory, by open addressing."""

from __future__ import annotations

from hashlib import blake2b
from secrets import token_bytes
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_SLACK: Final = 24  # slots behind the last home, so that nothing wraps around


class Slots:
    """Slots of a digest, what belongs to it, and a byte of marks, which is 0 in a free slot and in no other.

    Attributes:
        slots: How many homes there are; best filled to seven eighths at most.
        width: Bytes of a slot; the last is that of the marks.
        table: All slots, one after the other.
    """

    __slots__ = ("_free", "slots", "table", "width")

    def __init__(self, slots: int, width: int) -> None:
        """Begin with zeros."""
        self.slots: int = slots
        self.width: int = width
        self.table: bytearray = bytearray((slots + _SLACK) * width)
        self._free = bytes(width)

    def find(self, digest: bytes, head: int) -> int:
        """Return where the slot of a digest begins, or the free one that it would get.

        Args:
            digest: What a slot begins with.
            head: Where its home is: evenly spread over 32 bits.
        """
        home = (head * self.slots >> 32) * self.width
        # As no marks are 0, so many zeros in a row are one free slot.
        free = self.table.find(self._free, home)
        if free < 0:
            free = self.extend()
        found = self.table.find(digest, home, free)
        return free if found < 0 else found

    def extend(self) -> int:
        """Add some slots behind; returns where they begin."""
        free = len(self.table)
        self.table.extend(bytes(_SLACK * self.width))
        return free


def digester(size: int) -> Callable[[str | int], bytes]:
    """Return what makes digests of so many bytes of names, keyed, so that nobody can choose names that collide."""
    blank = blake2b(digest_size=size, key=token_bytes(16))

    def digest(name: str | int) -> bytes:
        # JSON can name half of a surrogate pair; and no text begins with the byte that numbers begin with.
        data = name.encode("utf-8", "surrogatepass") if isinstance(name, str) else b"\xff%d" % name
        hashed = blank.copy()  # half the time of a new one
        hashed.update(data)
        return hashed.digest()

    return digest
