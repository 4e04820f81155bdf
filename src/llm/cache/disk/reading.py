"""What reads from the file: entries by key, pages of them, and how full it is."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llm.cache.base import CacheEntry, CacheUsage

from .rows import COLUMNS, number_of, read
from .schema import totals
from .selection import is_there, select

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

    from llm.utils.clock import Clock

    from .file import Connection
    from .rows import Kept
    from .worker import Job

_MOST_ROWS: Final = 256  # in one statement
_PAGE: Final = 64  # entries of a scan that are in memory at once
_LOWEST: Final = -(2**63)


class Page(NamedTuple):
    """A part of a scan.

    Attributes:
        entries: Keys and entries.
        last: Number of the last row that was looked at; None where there are no more.
    """

    entries: list[tuple[str, CacheEntry]]
    last: int | None


class Reader:
    """A station that reads. It tells the numbers of rows that were used, and of those that are damaged."""

    def __init__(
        self,
        connection: Connection,
        *,
        most: int,
        clock: Clock,
        used: Callable[[list[int]], None],
        damaged: Callable[[int], None],
    ) -> None:
        """Read values of at most `most` bytes."""
        self._file = connection
        self._most = most
        self._clock = clock
        self._used = used
        self._damaged = damaged
        self._rows: dict[int, Kept] = {}
        self._connection: sqlite3.Connection

    def handle(self, jobs: Sequence[Job[Any, Any]]) -> None:
        """Fetch the rows of all these together, and let each take its own."""

        def work(connection: sqlite3.Connection) -> None:
            self._connection = connection
            self._rows = self._fetch({number for job in jobs for number in job.rows})
            for job in jobs:
                job.run(self)

        try:
            self._file.run(work)
        finally:
            self._rows = {}

    def close(self) -> None:
        """Close the connection."""
        self._file.close()

    def get(self, key: str) -> CacheEntry | None:
        """Return what is under the key; the job names its row."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Sequence[str]) -> dict[str, CacheEntry]:
        """Return what is there of several keys; the job names their rows."""
        found = self._found(keys)
        self._used([number_of(key) for key in found])
        return found

    def exists(self, key: str) -> bool:
        """Return whether something is under the key; the job names its row."""
        return bool(self._found([key]))

    def page(self, *, after: int | None, tags: tuple[str, ...], older_than: float) -> Page:
        """Return what comes behind a row, in the order of the rows' numbers."""
        now = self._clock.wall()
        selected = select(now, tags, older_than)
        columns = COLUMNS.replace("id", selected.number, 1)
        rows = self._connection.execute(
            f"SELECT {columns} FROM {selected.source} WHERE {selected.where} AND {selected.number} > ? "  # noqa: S608 - ours
            f"ORDER BY {selected.number} LIMIT {_PAGE}",
            (*selected.values, _LOWEST if after is None else after),
        ).fetchall()
        entries = [(kept.key, kept.entry(now)) for kept in map(self._read, rows) if kept is not None]
        return Page(entries, rows[-1][0] if len(rows) == _PAGE else None)

    def usage(self) -> CacheUsage:
        """Return how full it is; what is over is counted, and left out."""
        now = self._clock.wall()
        entries, size = totals(self._connection)
        # Not by `select`: both halves are read from an index alone.
        [(over, over_size)] = self._connection.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM entries WHERE over_at <= ?", (now,)
        ).fetchall()
        return CacheUsage(max(0, entries - over), max(0, size - over_size))

    def _found(self, keys: Iterable[str]) -> dict[str, CacheEntry]:
        now = self._clock.wall()
        kept = [(key, self._rows.get(number_of(key))) for key in keys]
        return {
            key: row.entry(now)
            for key, row in kept
            if row is not None and row.key == key and is_there(now, row.put_at, row.ttl)
        }

    def _fetch(self, numbers: Iterable[int]) -> dict[int, Kept]:
        rows: dict[int, Kept] = {}
        left = iter(numbers)
        while some := list(islice(left, _MOST_ROWS)):
            marks = ",".join("?" * len(some))
            found = self._connection.execute(f"SELECT {COLUMNS} FROM entries WHERE id IN ({marks})", some)  # noqa: S608 - question marks
            for row in found.fetchall():
                if (kept := self._read(row)) is not None:
                    rows[row[0]] = kept
        return rows

    def _read(self, row: tuple[Any, ...]) -> Kept | None:
        kept = read(row, most=self._most)
        if kept is None:
            self._damaged(row[0])
        return kept
