"""Which tokens may come next, a bit for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from llguidance import LLMatcher

_WORD: Final = 4  # bytes
_BITS: Final = 8
_HIDDEN: Final = torch.tensor([[not byte >> bit & 1 for bit in range(_BITS)] for byte in range(256)])


class Mask:
    """Room for a bit per token of a vocabulary, to be used again and again by one thread."""

    def __init__(self, tokens: int) -> None:
        """Make room."""
        self._data = bytearray(-(-tokens // (_WORD * _BITS)) * _WORD)
        self._bytes = torch.frombuffer(self._data, dtype=torch.uint8)

    def fill(self, matcher: LLMatcher) -> None:
        """Take what a text may go on with."""
        matcher.unsafe_compute_mask_ptr(self._bytes.data_ptr(), len(self._data))

    def allows(self, token: int) -> bool:
        """Return whether a token may come."""
        return bool(self._data[token // _BITS] >> token % _BITS & 1)

    def first(self) -> int | None:
        """Return the first token that may come; None where there is none."""
        for at, byte in enumerate(self._data):
            if byte:
                return _BITS * at + (byte & -byte).bit_length() - 1
        return None

    def hide(self, scores: torch.Tensor) -> torch.Tensor:
        """Return scores of which those of other tokens are minus infinity, shape `(vocabulary,)`."""
        hidden = _HIDDEN[self._bytes.to("cpu", torch.int64)].flatten()[: len(scores)]
        return scores.masked_fill(hidden.to(scores.device), float("-inf"))
