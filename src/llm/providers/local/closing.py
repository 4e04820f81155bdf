"""The shortest way for an answer to end in its form, for one that would be cut before it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from .masks import Mask

_LETTER: Final = "z"  # allowed in a text, and nowhere outside of one
_WITHIN: Final = ('"', _LETTER)
_OUTSIDE: Final = ("}", "]", '"', ",", "null", "n", "0", "1")


class Closers(NamedTuple):
    """Tokens that lead to an end, the shortest way first.

    Attributes:
        letter: One that only a text may have.
        within: For within a text.
        outside: For elsewhere.
    """

    letter: int | None
    within: tuple[int, ...]
    outside: tuple[int, ...]

    def in_text(self, mask: Mask) -> bool:
        """Return whether what may come goes on with a text."""
        return self.letter is not None and mask.allows(self.letter)


def closers_of(tokenizer: LLTokenizer) -> Closers:
    """Return them, as far as the vocabulary has them as single tokens."""
    ids = {text: tokenizer.greedy_tokenize(text) for text in (*_WITHIN, *_OUTSIDE)}
    single = {text: tokens[0] for text, tokens in ids.items() if len(tokens) == 1}
    return Closers(
        single.get(_LETTER),
        tuple(single[text] for text in _WITHIN if text in single),
        tuple(single[text] for text in _OUTSIDE if text in single),
    )


def way_out(matcher: LLMatcher, closers: Closers, mask: Mask, most: int) -> list[int] | None:
    """Return tokens with which the text is whole, `most` of them at the most; None where that is too few.

    Args:
        matcher: Where the text stands; it stays there.
        closers: What leads to an end.
        mask: To work with.
        most: Number of tokens.
    """
    ahead, way = matcher.deep_copy(), list[int]()
    while not ahead.is_accepting():
        more = ahead.compute_ff_tokens() or _next(ahead, closers, mask)
        if not more or len(way) + len(more) > most or not ahead.consume_tokens(more):
            return None
        way += more
    return way


def _next(matcher: LLMatcher, closers: Closers, mask: Mask) -> list[int]:
    mask.fill(matcher)
    wanted = closers.within if closers.in_text(mask) else closers.outside
    token = next((token for token in wanted if mask.allows(token)), None)
    if token is None:
        token = mask.first()
    return [] if token is None else [token]
