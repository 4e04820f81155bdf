"""What the pieces of a stream tell beside its chunks, put together as a whole answer would have it."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_WHOLE: Final = frozenset({"id", "type", "role", "format"})
"""Texts that a piece repeats, and does not continue."""


def merged(pieces: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the pieces as one: texts and lists joined, objects merged, of all else the last word; null says nothing.

    Data in base64 is joined as what it stands for, since every piece of it is encoded by itself.
    """
    values: dict[str, list[Any]] = {}
    for piece in pieces:
        for name, value in piece.items():
            if value is not None:
                values.setdefault(name, []).append(value)
    return {name: _joined(name, several) for name, several in values.items()}


def _joined(name: str, values: list[Any]) -> Any:  # noqa: ANN401 - JSON
    kinds = set(map(type, values))
    if kinds == {dict}:
        return merged(values)
    if kinds == {list}:
        return [element for value in values for element in value]
    if kinds == {str} and name == "data":
        return _joined_data(values)
    if kinds == {str} and name not in _WHOLE:
        return "".join(values)
    return values[-1]


def _joined_data(values: list[str]) -> str:
    try:
        data = b"".join([base64.b64decode(value, validate=True) for value in values])
    except (binascii.Error, ValueError):
        return "".join(values)
    return base64.b64encode(data).decode("ascii")
