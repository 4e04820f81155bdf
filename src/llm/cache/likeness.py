"""Where vectors lie: what tells two questions apart that are written almost alike.

A vector says what a text is about, and hardly what it says of it: "with" and "without", 5 and 50, dogs and cats lie
close together. So numbers, negations, quotations, addresses and dates must be the same (`marks_of`), and what remains
must not contradict (`contradict`). Both are simple, know English best, and err to one side: what is told apart in vain
is asked anew.
"""

from __future__ import annotations

import re
from typing import Final

from .words import DIRECTIONS, FUNCTION_WORDS, NEGATIONS, NUMBERS, OPPOSITES, TIMES

_QUOTED: Final = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”|„[^“”\n]*[“”]|«[^»\n]*»|`[^`\n]*`|(?<!\w)'[^'\n]+'(?!\w)")
_WORD: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # noqa: RUF001 - as it is typed
_MID_SENTENCE_NAME: Final = re.compile(r"(?<![.!?…:\n])[ \t]+[(\"'“«]?([^\W\d_a-z][^\W\d_]*)")
_ACRONYM: Final = re.compile(r"\b[A-Z]{2,}\b")
_EDGES: Final = ".,;:!?…¿¡\"'()[]«»“”„‚‘’"  # noqa: RUF001 - as it is typed
_SIGNS: Final = frozenset("@/\\_=<>%$€£¥+*^#&|~{}°§-–—×÷√≤≥≠")  # noqa: RUF001 - as people type them
_IN_WORDS: Final = frozenset("-–—")  # noqa: RUF001 - which join words, too
_FEW: Final = 5  # letters, up to which every one of them counts

_NEGATING: Final = frozenset("不没無无非未沒")  # in scripts that leave no space between words
_PREFIXES: Final = ("un", "in", "im", "il", "ir", "dis", "non", "de", "anti", "mis", "re")


def marks_of(text: str) -> tuple[tuple[str, ...], ...]:
    """Return what must be the same in two texts for one answer to serve both.

    Quotations and code; what has a number or a sign in it, and numbers in words, in their order; words of time; and
    how often something is denied.
    """
    quoted = tuple(_QUOTED.findall(text))
    spoken = [word.casefold() for word in _WORD.findall(text)]
    signed = [piece for piece in (token.strip(_EDGES) for token in text.split()) if _is_exact(piece)]
    counted = [word for word in spoken if word in NUMBERS]
    times = sorted(word for word in spoken if word in TIMES)
    denied = sum(_denies(word) for word in spoken) + sum(map(text.count, _NEGATING))
    return quoted, tuple(signed), tuple(counted), tuple(times), (str(denied),)


def _is_exact(piece: str) -> bool:
    if any(character.isnumeric() or (character in _SIGNS and character not in _IN_WORDS) for character in piece):
        return True
    return bool(piece) and not any(map(str.isalnum, piece))  # a dash between two words, for one, may be a minus


def _denies(word: str) -> bool:
    return word in NEGATIONS or word.endswith(("n't", "n’t"))  # noqa: RUF001 - as it is typed


def contradict(one: str, other: str) -> bool:
    """Return whether two texts with the same marks seem to ask for different things.

    One names what the other does not; has the opposite of what the other has; has its words in another order; or is
    the same sentence about something else.
    """
    spoken = [word.casefold() for word in _WORD.findall(one)]
    heard = [word.casefold() for word in _WORD.findall(other)]
    return (
        bool(_names(one).difference(heard) or _names(other).difference(spoken))
        or _opposed(spoken, heard)
        or _turned(spoken, heard)
        or _about_another(spoken, heard)
    )


def _names(text: str) -> set[str]:
    named = {*_MID_SENTENCE_NAME.findall(text), *_ACRONYM.findall(text)} - {"I"}
    return {name.casefold() for name in named}


def _opposed(spoken: list[str], heard: list[str]) -> bool:
    mine, theirs = _sides(spoken), _sides(heard)
    if any(theirs.get(pair, sides) != sides for pair, sides in mine.items()):
        return True
    only_one, only_other = set(spoken).difference(heard), set(heard).difference(spoken)
    return any(
        prefix + word in only_other or (word.startswith(prefix) and word[len(prefix) :] in only_other)
        for word in only_one
        for prefix in _PREFIXES
    )


def _sides(words: list[str]) -> dict[int, frozenset[int]]:
    found: dict[int, frozenset[int]] = {}
    for word in words:
        for pair, side in OPPOSITES.get(word, ()):
            found[pair] = found.get(pair, frozenset()) | {side}
    return found


def _turned(spoken: list[str], heard: list[str]) -> bool:
    if spoken != heard and sorted(spoken) == sorted(heard):
        return True
    ways = _ways(heard)
    return any((after, before) in ways for before, after in _ways(spoken))


def _ways(words: list[str]) -> set[tuple[str, str]]:
    middles = zip(words, words[1:], words[2:], strict=False)
    return {(before, after) for before, middle, after in middles if middle in DIRECTIONS and before != after}


def _about_another(spoken: list[str], heard: list[str]) -> bool:
    if len(spoken) == len(heard):  # the same sentence, word for word, but for some
        pairs = [(one, other) for one, other in zip(spoken, heard, strict=True) if one != other]
        if len(pairs) * 2 <= len(spoken) and any(_differ(one, other) for one, other in pairs):
            return True
    only_one = set(spoken).difference(heard, FUNCTION_WORDS)
    only_other = set(heard).difference(spoken, FUNCTION_WORDS)
    return len(only_one) == len(only_other) == 1 and _differ(only_one.pop(), only_other.pop())


def _differ(one: str, other: str) -> bool:
    """Tell whether two words are two, not one of them inflected, and neither merely holds the sentence together."""
    if one in FUNCTION_WORDS or other in FUNCTION_WORDS:
        return False
    shorter, longer = sorted((one, other), key=len)
    return not longer.startswith(shorter if len(shorter) <= _FEW else shorter[:-1])
