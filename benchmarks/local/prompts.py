"""Prompts of known lengths, which share nothing: no engine has seen any before."""

from __future__ import annotations

from random import Random
from typing import Final

SHORTEST: Final = 47
LONGEST: Final = 310
_FIRST_WORDS: Final = (
    "The A In It We He She They You This That There When What How Why If As For From With By On At One Two Some Most "
    "All Many Each Every After Before Since While During Between About Into Over Under Through Against Because"
)
_NEXT_WORDS: Final = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city community name president team minute idea body information "
    "back parent face others level office door health person art war history party result change morning reason "
    "research girl guy moment air teacher force education foot boy age policy music market sense land plan"
)
_FIRST: Final = tuple(_FIRST_WORDS.split())
_NEXT: Final = tuple(_NEXT_WORDS.split())
"""Words that are one token each, with the space before them."""


def prompt(tokens: int, random: Random) -> str:
    """Return a text of so many tokens of the model's, one a word."""
    return " ".join([random.choice(_FIRST), *random.choices(_NEXT, k=tokens - 1)])


def prompts(count: int, *, seed: str) -> list[str]:
    """Return prompts whose lengths lie evenly between shortest and longest, in no order."""
    random = Random(seed)  # noqa: S311 - not for secrets
    step = (LONGEST - SHORTEST) / max(1, count - 1)
    lengths = [SHORTEST + round(step * number) for number in range(count)]
    if count == 1:
        lengths = [(SHORTEST + LONGEST) // 2]
    random.shuffle(lengths)
    return [prompt(length, random) for length in lengths]
