"""Questions by their vectors: the nearest of a group, found without a package for it.

A vector is kept in single precision, and beside it one bit for each of its numbers: whether that is larger than the
next one. Vectors that point the same way have nearly the same bits, and to count those that differ takes a tenth of a
microsecond. So the bits choose a few of a group, and of these alone the cosine is reckoned, exactly. Where the bits
choose wrongly something like is not found; what is found is as like as it is said to be.
"""

from __future__ import annotations

import base64
import math
import struct
from array import array
from collections import OrderedDict
from heapq import nsmallest
from operator import gt, mul
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

_VERSION: Final = 1
_CHOSEN: Final = 8  # of a group, whose cosines are reckoned
_ROUNDING: Final = 1e-6  # of cosines, in single precision
_DIGITS: Final = bytes.maketrans(b"\0\1", b"01")

Unit: TypeAlias = "array[float]"
"""A vector of length 1, in single precision."""


class Question(NamedTuple):
    """A question that was answered.

    Attributes:
        key: Where its answer is kept.
        text: What was asked.
        unit: Its vector.
        signs: The bits of that.
        ttl: Seconds that the answer may be used, from when it was kept.
        at: Monotonic seconds, when it was kept.
    """

    key: str
    text: str
    unit: Unit
    signs: int
    ttl: float
    at: float


def unit_of(numbers: Iterable[float]) -> Unit | None:
    """Return the vector at length 1; None where it has no direction."""
    vector = list(numbers)
    length = math.hypot(*vector)
    if not 0.0 < length < math.inf:  # not a number is neither
        return None
    return array("f", [number / length for number in vector])


def signs_of(unit: Unit) -> int:
    """Return a bit for each number: whether it is larger than the next one, and the last one than the first."""
    numbers = unit.tolist()
    flags = bytes(map(gt, numbers, (*numbers[1:], numbers[0])))
    return int(flags.translate(_DIGITS), 2)


def encode(question: Question) -> bytes:
    """Return a question as it is kept beside its answer."""
    unit = base64.b64encode(struct.pack(f"<{len(question.unit)}f", *question.unit)).decode("ascii")
    kept = {"v": _VERSION, "key": question.key, "text": question.text, "ttl": question.ttl, "unit": unit}
    return orjson.dumps(kept)


def decode(value: bytes, *, at: float) -> Question | None:
    """Read one back that was kept at a time; None for what is damaged, foreign, or of another version."""
    try:
        kept = orjson.loads(value)
        version, key, text, ttl, packed = (kept[name] for name in ("v", "key", "text", "ttl", "unit"))
        data = base64.b64decode(packed, validate=True)
        unit = unit_of(struct.unpack(f"<{len(data) // 4}f", data))
    except (ValueError, TypeError, LookupError, struct.error):
        return None
    whole = isinstance(key, str) and isinstance(text, str) and type(ttl) in {int, float}
    if unit is None or not whole or version != _VERSION:
        return None
    return Question(cast("str", key), cast("str", text), unit, signs_of(unit), float(cast("float", ttl)), at)


class VectorIndex:
    """Questions in groups, within which they are compared; the least recently used leave first when it is full."""

    def __init__(self, most: int) -> None:
        """Start empty, with room for `most` questions."""
        self._most = most
        self._groups: dict[str, dict[str, Question]] = {}
        self._order: OrderedDict[tuple[str, str], None] = OrderedDict()

    def __len__(self) -> int:
        """Return how many questions there are."""
        return len(self._order)

    def __contains__(self, group: str) -> bool:
        """Return whether a group has any."""
        return group in self._groups

    def resize(self, most: int) -> None:
        """Have room for so many from now on."""
        self._most = most
        while len(self._order) > most:
            self.drop(*next(iter(self._order)))

    def add(self, group: str, question: Question) -> None:
        """Add a question, in place of one with the same answer."""
        self._groups.setdefault(group, {})[question.key] = question
        self.used(group, question.key)
        self.resize(self._most)

    def used(self, group: str, key: str) -> None:
        """Count a use of the question with this answer."""
        self._order[group, key] = None
        self._order.move_to_end((group, key))

    def drop(self, group: str, key: str) -> None:
        """Forget a question, where it is still there."""
        if self._order.pop((group, key), self) is self:
            return
        del self._groups[group][key]
        if not self._groups[group]:
            del self._groups[group]

    def nearest(self, group: str, unit: Unit, threshold: float) -> list[tuple[float, Question]]:
        """Return questions of the group and their cosines, the most alike first; none below the threshold."""
        signs, numbers = signs_of(unit), unit.tolist()
        kept = self._groups.get(group, {}).values()
        chosen = nsmallest(_CHOSEN, kept, key=lambda question: (question.signs ^ signs).bit_count())
        alike = [(sum(map(mul, numbers, each.unit)), each) for each in chosen if len(each.unit) == len(unit)]
        least = threshold - _ROUNDING
        return sorted((pair for pair in alike if pair[0] >= least), key=lambda pair: -pair[0])
