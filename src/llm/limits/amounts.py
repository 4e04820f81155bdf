"""Amounts in all units at once: one whole number, in which each unit has digits of its own.

A call is counted in the windows of everything, of its user and of its key, in each of them in five units. To add two
numbers of two hundred digits takes as long as to add two floats, so what counts all units together costs a fifth of
what counts each, and is the same arithmetic; nor do sums of whole numbers drift.
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
_PARTS: Final = 1 << 40  # of one token, request or dollar
_LARGEST: Final = 1 << 60  # what exceeds it is counted as so much: a hundred million such fit into a unit
_SHIFTS: Final = tuple(_WIDTH * place for place in range(TOGETHER))
_FIRST: Final = _WIDTH - 1  # the bit of a unit that says that it is below nothing, where all are known to be small
_HALF: Final = 1 << _FIRST
_HALVES: Final = sum(_HALF << shift for shift in _SHIFTS)
_DIGITS: Final = (1 << _WIDTH) - 1
_ONE: Final = 40
_OUTPUT, _TOTAL, _REQUESTS = _SHIFTS[1] + _ONE, _SHIFTS[2] + _ONE, _SHIFTS[4] + _ONE

EXCEEDED: Final = _HALVES | 1 << _WIDTH * TOGETHER
"""Bits of which `most - amounts` has one where some unit of `amounts` exceeds that of `most`."""


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
                (input_tokens << _ONE) + (output_tokens << _OUTPUT) + (total_tokens << _TOTAL) + (requests << _REQUESTS)
            )
            if cost:
                together += alone(3, cost)
    except TypeError:  # parts of tokens
        together = summed(charge)
    return _amounts((input_tokens, output_tokens, total_tokens, cost, requests, together))


def summed(amounts: Iterable[float]) -> int:
    """Return an amount of each unit together, in the order of a charge."""
    return sum([alone(place, amount) for place, amount in enumerate(amounts)])


def alone(place: int, amount: float) -> int:
    """Return so much of the unit at a place of a charge, and nothing of the others."""
    return int(max(-_LARGEST, min(_LARGEST, amount)) * _PARTS) << _SHIFTS[place]  # what is no number is the largest


def part(together: int, place: int) -> float:
    """Return the amount of one unit; it, and any other, may be below 0."""
    return ((together + _HALVES >> _SHIFTS[place] & _DIGITS) - _HALF) / _PARTS


def only(together: int, place: int) -> int:
    """Return the same without the other units."""
    return (together + _HALVES >> _SHIFTS[place] & _DIGITS) - _HALF << _SHIFTS[place]
