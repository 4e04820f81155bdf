"""Amounts in all units at once: one whole number, in which each unit has digits of its own.

A call is counted in the windows of everything, of its user and of its key, in each of them in five units. To add two
numbers of two hundred digits takes little longer than to add two floats. So to count all units costs little more than
to count one, and is the same arithmetic; nor do sums of whole numbers drift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm.core.call import Charge
from llm.utils.frozen import packer

if TYPE_CHECKING:
    from collections.abc import Iterable

TOGETHER: Final = len(Charge._fields)
"""Where `Amounts` have all units together."""

_WIDTH: Final = 128  # bits of a unit
_FRACTION: Final = 40  # bits of them, below one token, request or dollar
_ONE: Final = 1 << _FRACTION
_LARGEST: Final = 1 << 60  # what exceeds it is counted as so much: a hundred million such fit into a unit
_SHIFTS: Final = tuple(_WIDTH * place for place in range(TOGETHER))
_COST: Final = Charge._fields.index("cost")
_DIGITS: Final = (1 << _WIDTH) - 1
_HALF: Final = 1 << _WIDTH - 1
_HALVES: Final = sum(_HALF << shift for shift in _SHIFTS)
_INPUT, _OUTPUT, _TOTAL, _, _REQUESTS = [shift + _FRACTION for shift in _SHIFTS]

EXCEEDED: Final = _HALVES
"""Bits of which `most - amounts` has one where some unit of `amounts` exceeds that of `most`: the first of a unit's,
which is set in what is below 0."""


class Amounts(Charge):
    """A charge, and behind its units all of them together."""

    __slots__ = ()


_amounts = packer(Amounts)


def amounts_of(charge: Charge) -> Amounts:
    """Return a charge with all of its units together behind them."""
    if type(charge) is Amounts:
        return charge
    input_tokens, output_tokens, total_tokens, cost, requests = charge
    try:
        if input_tokens + output_tokens + total_tokens > _LARGEST:
            together = summed(charge)
        else:
            together = (
                (input_tokens << _INPUT)
                + (output_tokens << _OUTPUT)
                + (total_tokens << _TOTAL)
                + (requests << _REQUESTS)
            )
            if cost:
                together += alone(_COST, cost)
    except TypeError:  # parts of tokens
        together = summed(charge)
    return _amounts((input_tokens, output_tokens, total_tokens, cost, requests, together))


def summed(amounts: Iterable[float]) -> int:
    """Return an amount of each unit together, in the order of a charge."""
    return sum([alone(place, amount) for place, amount in enumerate(amounts)])


def alone(place: int, amount: float) -> int:
    """Return so much of the unit at a place of a charge, and nothing of the others."""
    return int(max(-_LARGEST, min(_LARGEST, amount)) * _ONE) << _SHIFTS[place]  # what is no number is the largest


def part(together: int, place: int) -> float:
    """Return the amount of one unit; it, and any other, may be below 0."""
    return ((together + _HALVES >> _SHIFTS[place] & _DIGITS) - _HALF) / _ONE


def only(together: int, place: int) -> int:
    """Return the same without the other units."""
    return (together + _HALVES >> _SHIFTS[place] & _DIGITS) - _HALF << _SHIFTS[place]
