"""The unit in which the memory of requests is counted and shared; without torch, for those who only count."""

from __future__ import annotations

from typing import Final

BLOCK: Final = 32
"""Tokens of one block."""
_SMALLEST: Final = 4 * BLOCK


def blocks_of(tokens: int) -> int:
    """Return how many blocks hold so many tokens."""
    return -(-tokens // BLOCK)


def room_for(tokens: int) -> int:
    """Return the room of the rows that hold so many tokens: 128 or the next power of two."""
    return max(_SMALLEST, 1 << (tokens - 1).bit_length())
