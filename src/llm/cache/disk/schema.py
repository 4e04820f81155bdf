"""The tables of a cache's file."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Final

_APPLICATION: Final = 0x6C6C6D63
_VERSION: Final = 1
_HIGHEST: Final = 2**62
_LARGEST_LOG: Final = 4_194_304  # bytes that the write-ahead log keeps when it is empty

# What is small stands before what is large, so that reading the one does not read the other. `used` is a count, not a
# time: the order in which entries were used, whatever the clocks say.
_TABLES: Final = {
    "entries": """CREATE TABLE entries (id INTEGER PRIMARY KEY, key TEXT NOT NULL, put_at REAL NOT NULL,
over_at REAL NOT NULL, ttl REAL NOT NULL, used INTEGER NOT NULL, size INTEGER NOT NULL, tags TEXT NOT NULL,
sum BLOB NOT NULL, value BLOB NOT NULL)""",
    "tagged": "CREATE TABLE tagged (tag TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (tag, id)) WITHOUT ROWID",
    "totals": "CREATE TABLE totals (entries INTEGER NOT NULL, bytes INTEGER NOT NULL)",
    "by_age": "CREATE INDEX by_age ON entries (put_at, size)",
    "by_end": "CREATE INDEX by_end ON entries (over_at, size)",
    "by_use": "CREATE INDEX by_use ON entries (used, size)",
    "tags_of": "CREATE INDEX tags_of ON tagged (id)",
    "comes": """CREATE TRIGGER comes AFTER INSERT ON entries BEGIN
UPDATE totals SET entries = entries + 1, bytes = bytes + new.size; END""",
    "leaves": """CREATE TRIGGER leaves AFTER DELETE ON entries BEGIN
UPDATE totals SET entries = entries - 1, bytes = bytes - old.size; DELETE FROM tagged WHERE id = old.id; END""",
}
_MADE: Final = sorted((name.encode(), sql.encode()) for name, sql in _TABLES.items())


class DamagedError(sqlite3.DatabaseError):
    """The file holds what we did not write."""


def configure(connection: sqlite3.Connection) -> None:
    """Set what holds for a connection; changes nothing in the file."""
    connection.text_factory = bytes  # damaged text must not raise
    for setting in (
        "trusted_schema = OFF",
        "cell_size_check = ON",
        "mmap_size = 0",  # a file that is cut short while it is mapped would end the process
        "temp_store = MEMORY",
        "synchronous = NORMAL",
        f"journal_size_limit = {_LARGEST_LOG}",
    ):
        connection.execute(f"PRAGMA {setting}").fetchall()


def is_new(connection: sqlite3.Connection) -> bool:
    """Return whether nothing was ever made in it."""
    return _number(connection, "application_id") == 0 and not _found(connection)


def make(connection: sqlite3.Connection) -> None:
    """Make the tables, all at once."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL").fetchall()
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("BEGIN IMMEDIATE")
    for sql in _TABLES.values():
        connection.execute(sql)
    connection.execute("INSERT INTO totals VALUES (0, 0)")
    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
    connection.execute(f"PRAGMA user_version = {_VERSION}")
    connection.execute("COMMIT")


def check(connection: sqlite3.Connection) -> None:
    """Look whether these are our tables, and nothing else.

    Raises:
        DamagedError: It is another program's file, or of another version.
    """
    known = (_number(connection, "application_id"), _number(connection, "user_version")) == (_APPLICATION, _VERSION)
    if not known or _found(connection) != _MADE:
        raise DamagedError("it is no cache of this version")


def empty(connection: sqlite3.Connection) -> None:
    """Remove all entries; without the trigger this takes no time per entry."""
    connection.execute("DROP TRIGGER leaves")
    connection.execute("DELETE FROM entries")
    connection.execute("DELETE FROM tagged")
    connection.execute("UPDATE totals SET entries = 0, bytes = 0")
    connection.execute(_TABLES["leaves"])


def shrink(connection: sqlite3.Connection) -> None:
    """Give the room of what was removed back to the disk, unless others are at work in the file."""
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA incremental_vacuum").fetchall()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def recount(connection: sqlite3.Connection) -> None:
    """Count anew what the triggers keep, which damage may have changed."""
    connection.execute("DELETE FROM totals")
    connection.execute("INSERT INTO totals SELECT count(*), coalesce(sum(size), 0) FROM entries INDEXED BY by_use")


def totals(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many entries there are, and the bytes of their values; what is over is among them.

    Raises:
        DamagedError: That is not told.
    """
    rows = connection.execute("SELECT entries, bytes FROM totals").fetchall()
    if len(rows) != 1:
        raise DamagedError("its totals are gone")
    return whole(rows[0][0]), whole(rows[0][1])


def whole(value: object) -> int:
    """Return what must be a whole number that can still be counted up.

    Raises:
        DamagedError: It is something else.
    """
    if not isinstance(value, int) or value > _HIGHEST:
        raise DamagedError("a number in it is none")
    return value


def _number(connection: sqlite3.Connection, name: str) -> object:
    [(number,)] = connection.execute(f"PRAGMA {name}").fetchall()
    return number


def _found(connection: sqlite3.Connection) -> list[tuple[bytes, bytes]]:
    return sorted(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())
