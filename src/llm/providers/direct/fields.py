"""The fields of an answer's head."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import inf
from typing import Final

_TIMEOUT: Final = re.compile(rb"timeout=(\d{1,9})", re.IGNORECASE)


class Fields(Mapping[str, str]):
    """Fields found in any case of letters; a value becomes text when somebody asks for it."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Mapping[bytes, bytes]) -> None:
        """Keep the fields; their names are in lower case already."""
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        """Return a field's text."""
        return self._raw[name.lower().encode()].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        """Go over the names, in lower case."""
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        """Count them."""
        return len(self._raw)

    def __repr__(self) -> str:
        """Return the names only."""
        return f"Fields({', '.join(self)})"


def seconds_kept(field: bytes) -> float:
    """Return how long a connection can safely be kept, by the server's `Keep-Alive`.

    A second less than it says, for a request takes its time to arrive. Source: RFC 9112, appendix C.2.2.
    """
    stated = _TIMEOUT.search(field)
    return inf if stated is None else float(stated[1]) - 1.0
