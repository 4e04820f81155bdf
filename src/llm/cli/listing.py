"""The answers that are kept, as rows: a table on a terminal, lines for programs, or one JSON list."""

from __future__ import annotations

import heapq
import json
import sys
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from .shell import Shell
from .units import age_of, size_of

if TYPE_CHECKING:
    from llm.core.selection import Selection

    from .kept import Kept, Store

_COLUMNS: Final = ("key", "provider", "model", "user", "age", "left", "size")
_BESIDE_CONTENT: Final = ("key", "model", "user", "age", "answer")
_UNBROKEN: Final = frozenset({"key", "age", "left", "size"})
_SHOWN: Final = 12  # digits of a key on a terminal: enough to name one of a million
_BATCH: Final = 500  # rows of one table
_BEGINNING: Final = 60  # characters of an answer


@dataclass(slots=True)
class Listing:
    """Shows rows as they are added.

    Attributes:
        shell: Where they are shown.
        content: Whether they tell how the answers begin; with `--json` what they say.
        number: How many were added.
    """

    shell: Shell
    content: bool
    number: int = 0
    _rows: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])

    def read(self, kept: Kept) -> dict[str, Any]:
        """Return what is shown of an answer."""
        if not self.content:
            return kept.facts
        answer = kept.answer
        return {**kept.facts, "content": None if answer is None else answer.response.content}

    def add(self, facts: dict[str, Any]) -> None:
        """Show what `read` returned, now or with those that follow."""
        if self.shell.json:
            self.shell.put(",\n" if self.number else "[", end="")
            self.shell.put(json.dumps(facts, ensure_ascii=False), end="")
        else:
            cells = _cells(facts, whole_key=not sys.stdout.isatty())
            self._rows.append(tuple([" ".join(cells[name].split()) for name in self._columns]))  # a line each
            if len(self._rows) == _BATCH:
                self._show()
        self.number += 1

    def end(self, *, of: int) -> None:
        """Show what is left, and of how many there are more."""
        if self.shell.json:
            self.shell.put("]" if self.number else "[]")
        elif not self.number:
            self.shell.remark("no such answers are kept")
        self._show()
        if of > self.number:
            self.shell.remark(f"the newest {self.number:,} of {of:,}; --limit 0 lists all")

    def _show(self) -> None:
        if self._rows:
            self.shell.put_rows(self._columns, self._rows, unbroken=_UNBROKEN)
        self._rows = []

    @property
    def _columns(self) -> tuple[str, ...]:
        return _BESIDE_CONTENT if self.content else _COLUMNS


async def newest(store: Store, chosen: Selection, limit: int, listing: Listing) -> tuple[list[dict[str, Any]], int]:
    """Return what is shown of the newest answers, at most so many, and how many there are."""
    youngest: list[tuple[float, int, dict[str, Any]]] = []
    found = 0
    for_ties = count()
    async for kept in store.scan(chosen):
        found += 1
        if len(youngest) < limit:
            heapq.heappush(youngest, (-kept.entry.age, next(for_ties), listing.read(kept)))
        elif -kept.entry.age > youngest[0][0]:
            heapq.heapreplace(youngest, (-kept.entry.age, next(for_ties), listing.read(kept)))
    return [facts for _, _, facts in sorted(youngest, reverse=True)], found


def _cells(facts: dict[str, Any], *, whole_key: bool) -> dict[str, str]:
    return {
        "key": facts["key"] if whole_key else facts["key"][:_SHOWN],
        **{name: facts[name] or "" for name in ("provider", "model", "user")},
        "age": age_of(facts["age"]),
        "left": age_of(facts["expires_in"]),
        "size": size_of(facts["size"]),
        "answer": _beginning(facts.get("content")),
    }


def _beginning(content: str | None) -> str:
    if content is None:
        return "(damaged)"
    return content if len(content) <= _BEGINNING else f"{content[:_BEGINNING]}…"
