"""Guesses at the next tokens of a text from what stands in it: prompt lookup, without a second model.

Where the last few tokens stood before in the same text, what came after them then may come again: names, quotations,
code, lists. Guesses are read in one pass with the token before them, and those that the network would have chosen are
kept. A pass of a few tokens takes little longer than one of a single token, for all weights are fetched either way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALIKE: Final = 3  # tokens that must have stood before
_FIRST: Final = 2  # tokens of a first guess
_LONGEST: Final = 15
_LONGEST_REST: Final = 32  # passes without a guess


class Guesses:
    """Guesses for one text: longer ones after good ones, and fewer after bad ones."""

    def __init__(self) -> None:
        """Start with nothing known of the text."""
        self._after: dict[tuple[int, ...], int] = {}
        self._known = _ALIKE
        self._length = _FIRST
        self._rest = 0
        self._pause = 1

    def next(self, tokens: Sequence[int], most: int) -> list[int]:
        """Return what may come after a text; its beginning is the text of the last time.

        Args:
            tokens: The whole text, the prompt included.
            most: Longest guess, in tokens.
        """
        if self._rest > 0:
            self._rest -= 1
            return []
        for end in range(self._known, len(tokens)):
            self._after[tuple(tokens[end - _ALIKE : end])] = end
        self._known = max(self._known, len(tokens))
        start = self._after.get(tuple(tokens[-_ALIKE:]))
        if start is None:
            return []
        period = len(tokens) - start  # of a text that goes round in a ring
        return [tokens[start + place % period] for place in range(min(self._length, most))]

    def judge(self, given: int, right: int) -> None:
        """Learn how many tokens of a guess were right."""
        if right == given:
            self._length, self._pause = min(2 * self._length, _LONGEST), 1
        elif right:
            self._length = max(right, 1)
        else:
            self._length, self._rest = _FIRST, self._pause
            self._pause = min(2 * self._pause, _LONGEST_REST)
