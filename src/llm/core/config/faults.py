"""One mistake, before it is known where in a file it stands."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm.core.exceptions import ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Iterable

Path = tuple[str | int, ...]

_KINDS: dict[type, str] = {
    type(None): "nothing",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


@dataclass(frozen=True, slots=True)
class Fault(ConfigProblem):
    """A mistake at a field.

    Attributes:
        on_name: Whether the field's name is wrong, and not its value.
        needs: Other fields that the mistake was found by.
    """

    on_name: bool = False
    needs: tuple[str, ...] = ()


def dotted(path: Iterable[object]) -> str:
    """Return `("providers", "openai", "models", 2)` as `providers.openai.models[2]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else str(part)
    return text


def summary(count: int) -> str:
    """Return the line above the list of mistakes."""
    return f"the configuration has {count} mistake{'' if count == 1 else 's'}"


def within(field: str, outer: str) -> bool:
    """Tell whether the field is the outer one or a part of it."""
    return field == outer or field.startswith((f"{outer}.", f"{outer}["))


def meant(word: str, words: Iterable[str]) -> str:
    """Return ` (did you mean "x"?)` where one of the words is near, else nothing."""
    near = nearest(word, words)
    return f' (did you mean "{near}"?)' if near else ""


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the word that was most likely meant, or None."""
    near = difflib.get_close_matches(word, list(words), n=1)
    return near[0] if near else None


def kind_of(value: object) -> str:
    """Return what a reader calls the value's type; never the value, which may be a secret."""
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    return _KINDS.get(type(value), "text" if isinstance(value, str) else f"a {type(value).__name__}")
