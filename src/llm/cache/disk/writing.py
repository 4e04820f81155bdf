"""What writes to the file: several changes in one transaction, and what must leave so that they have room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from . import schema
from .rows import tags_of
from .selection import select

if TYPE_CHECKING:
    import sqlite3
    from collections import deque
    from collections.abc import Sequence

    from llm.utils.clock import Clock

    from .file import Connection
    from .rows import Row
    from .worker import Job

_MOST_OVER: Final = 256  # entries that are over and removed by one transaction
_MOST_LEAVING: Final = 64  # entries looked at together when there must be room


class Writer:
    """A station that writes."""

    def __init__(
        self, connection: Connection, *, max_entries: int, max_bytes: int, clock: Clock, used: deque[int]
    ) -> None:
        """Keep the file within its bounds; `used` has the numbers of rows that were used, the last one last."""
        self._file = connection
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._used = used
        self._connection: sqlite3.Connection
        self._counted: sqlite3.Connection | None = None  # where the totals are known to be right
        self._uses = 0  # of the file, so far
        self._shrink = False

    def handle(self, jobs: Sequence[Job[Any, Any]]) -> None:
        """Do all these, or none."""

        def work(connection: sqlite3.Connection) -> None:
            self._connection = connection
            self._shrink = False
            connection.execute("BEGIN IMMEDIATE")
            self._begin()
            for job in jobs:
                job.run(self)
            self._end()
            connection.execute("COMMIT")
            if self._shrink:
                schema.shrink(connection)

        self._file.run(work)

    def close(self) -> None:
        """Close the connection."""
        self._counted = None
        self._file.close()

    def put(self, row: Row) -> None:
        """Put a row, in place of the one that was there."""
        self.drop(row.id)
        self._connection.execute(
            "INSERT INTO entries (id, key, put_at, over_at, ttl, size, tags, sum, value, used) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, self._next_use()),
        )
        self._connection.executemany(
            "INSERT OR IGNORE INTO tagged VALUES (?, ?)", [(tag, row.id) for tag in tags_of(row.tags)]
        )

    def drop(self, number: int) -> None:
        """Remove a row, if it is there."""
        self._connection.execute("DELETE FROM entries WHERE id = ?", (number,))

    def delete(self, number: int) -> bool:
        """Remove a row; returns whether it was there, and not over."""
        selected = select(self._clock.wall())
        there = self._connection.execute(
            f"SELECT 1 FROM {selected.source} WHERE {selected.where} AND e.id = ?",  # noqa: S608 - ours
            (*selected.values, number),
        ).fetchall()
        self.drop(number)
        return bool(there)

    def clear(self) -> None:
        """Remove everything, and give its room back."""
        schema.empty(self._connection)
        self._shrink = True

    def remove(self, *, tags: tuple[str, ...], older_than: float) -> int:
        """Remove the entries that carry all of these tags and are at least so many seconds old; returns how many."""
        now = self._clock.wall()
        there = select(now, tags, older_than)
        [(removed,)] = self._connection.execute(
            f"SELECT count(*) FROM {there.source} WHERE {there.where}",  # noqa: S608 - ours
            there.values,
        ).fetchall()
        meant = select(now, tags, older_than, only_there=False)
        self._connection.execute(
            f"DELETE FROM entries WHERE id IN (SELECT {meant.number} FROM {meant.source} WHERE {meant.where})",  # noqa: S608 - ours
            meant.values,
        )
        self._shrink = True
        return int(removed)

    def note_uses(self) -> None:
        """Do nothing but what each transaction does."""

    def _begin(self) -> None:
        if self._counted is not self._connection:
            schema.recount(self._connection)
            self._counted = self._connection
        [(last,)] = self._connection.execute("SELECT coalesce(max(used), 0) FROM entries").fetchall()
        self._uses = schema.whole(last)
        used: dict[int, None] = {}
        for _ in range(len(self._used)):
            number = self._used.popleft()
            used.pop(number, None)
            used[number] = None  # where it was used last
        self._connection.executemany(
            "UPDATE entries SET used = ? WHERE id = ?", [(self._next_use(), number) for number in used]
        )

    def _end(self) -> None:
        over = "SELECT id FROM entries WHERE over_at <= ? LIMIT ?"
        self._connection.execute(f"DELETE FROM entries WHERE id IN ({over})", (self._clock.wall(), _MOST_OVER))  # noqa: S608 - ours
        entries, size = schema.totals(self._connection)
        while entries > self._max_entries or size > self._max_bytes:
            oldest = self._connection.execute(
                "SELECT id, size FROM entries ORDER BY used LIMIT ?", (_MOST_LEAVING,)
            ).fetchall()
            leaving: list[tuple[int]] = []
            for number, freed in oldest:
                if entries <= self._max_entries and size <= self._max_bytes:
                    break
                leaving.append((number,))
                entries -= 1
                size -= schema.whole(freed)
            if not leaving:
                raise schema.DamagedError("its totals are wrong")
            self._connection.executemany("DELETE FROM entries WHERE id = ?", leaving)

    def _next_use(self) -> int:
        self._uses += 1
        return self._uses
