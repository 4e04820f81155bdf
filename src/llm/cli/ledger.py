"""What the command line's calls came to, kept between runs in one SQLite file that many processes use at once.

It holds numbers by quarter of an hour, provider, model and command. Nothing that was asked or answered goes in, and no
key.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, astuple, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from .state import private_file

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

KEPT_FOR: Final = 400 * 86_400
"""Seconds: a year and a month, so that a month can be held against the same one a year ago."""

_NAME: Final = "usage.sqlite3"
_VERSION: Final = 1
_QUARTER: Final = 900  # seconds; every time zone's day begins with one
_PATIENCE: Final = 0.25  # seconds that another process may hold the file


class Grouping(StrEnum):
    """What calls are counted by; days are those of the machine's time zone."""

    DAY = "day"
    MODEL = "model"
    PROVIDER = "provider"
    COMMAND = "command"


_TEXTS: Final = {
    Grouping.DAY: "date(at, 'unixepoch', 'localtime')",
    Grouping.MODEL: "CASE model WHEN '' THEN provider ELSE provider || '/' || model END",
    Grouping.PROVIDER: "provider",
    Grouping.COMMAND: "command",
}


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls came to.

    Attributes:
        calls: Calls, however they ended.
        failed: Calls that failed.
        cancelled: Calls that were given up, by Ctrl-C for one.
        cache_hits: Calls that the cache answered.
        unpriced: Calls that were answered by a model of which no price is known.
        input_tokens: Tokens sent, those of the cache's answers left out.
        output_tokens: Tokens that came back, likewise.
        cached_input_tokens: Of those sent the ones that the provider had in its own cache.
        tokens_saved: Tokens of the cache's answers.
        cost: US dollars; what has no known price counts as nothing.
        cost_saved: US dollars that the cache's answers would have cost.
    """

    calls: int = 0
    failed: int = 0
    cancelled: int = 0
    cache_hits: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    tokens_saved: int = 0
    cost: float = 0.0
    cost_saved: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        """Return both together."""
        return Usage(*[mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)])

    def __sub__(self, other: Usage) -> Usage:
        """Return what is here and not there."""
        return Usage(*[mine - theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)])

    def as_json(self) -> dict[str, int | float]:
        """Return the numbers by their names, US dollars to a millionth of a cent."""
        return {name: round(value, 8) for name, value in asdict(self).items()}

    def __bool__(self) -> bool:
        """Tell whether there is any."""
        return any(astuple(self))


_COLUMNS: Final = tuple(field.name for field in fields(Usage))
_TABLE: Final = f"""
CREATE TABLE IF NOT EXISTS usage (
  at INTEGER NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, command TEXT NOT NULL,
  {", ".join(f"{name} {'REAL' if name.startswith('cost') else 'INTEGER'} NOT NULL" for name in _COLUMNS)},
  PRIMARY KEY (at, provider, model, command)
) WITHOUT ROWID
"""
_ADD: Final = f"""
INSERT INTO usage VALUES (?, ?, ?, ?, {", ".join("?" for _ in _COLUMNS)})
ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in _COLUMNS)}
"""  # noqa: S608 - of our own names


class LedgerError(Exception):
    """The file cannot be used; its text says which, why, and what to do."""


class Ledger:
    """The numbers kept in a folder. Each method raises `LedgerError` where the file cannot be used now."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; nothing is made before something is added."""
        self._folder = folder

    @property
    def path(self) -> Path:
        """The file."""
        return self._folder / _NAME

    def add(self, command: str, used: Iterable[tuple[str, str, Usage]], *, wall: float) -> None:
        """Add what was used, by provider and model, at `wall` seconds since 1970; and forget what is too old."""
        at = int(wall // _QUARTER) * _QUARTER
        rows = [(at, provider, model, command, *astuple(usage)) for provider, model, usage in used]
        with self._opened() as base, base:
            base.execute("BEGIN IMMEDIATE")
            base.execute(_TABLE)
            base.executemany(_ADD, rows)
            base.execute("DELETE FROM usage WHERE at < ?", (at - KEPT_FOR,))

    def totals(self, by: Sequence[Grouping], *, since: float) -> list[tuple[tuple[str, ...], Usage]]:
        """Return what was used from `since` on, in seconds since 1970, for each combination of `by`, in order of it."""
        if not self.path.exists():
            return []
        names = ", ".join(_TEXTS[name] for name in by)
        sums = ", ".join(f"total({name})" for name in _COLUMNS)
        query = f"SELECT {names}, {sums} FROM usage WHERE at + {_QUARTER} > ? GROUP BY {names} ORDER BY {names}"  # noqa: S608 - of our own names
        with self._opened() as base:
            found: list[Sequence[Any]] = base.execute(query, (since,)).fetchall() if _there(base) else []
        return [(tuple(row[: len(by)]), _usage(row[len(by) :])) for row in found]

    def clear(self) -> None:
        """Forget everything; a file that is damaged is removed."""
        if not self.path.exists():
            return
        try:
            with self._opened() as base:
                base.execute("DROP TABLE IF EXISTS usage")
                base.execute("VACUUM")
        except LedgerError:
            for name in (_NAME, f"{_NAME}-wal", f"{_NAME}-shm"):
                with self._telling():
                    (self._folder / name).unlink(missing_ok=True)

    @contextmanager
    def _opened(self) -> Generator[sqlite3.Connection]:
        with self._telling():
            path = private_file(self._folder, _NAME)
            # Transactions are begun where they are needed.
            with closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as base:
                (version,) = base.execute("PRAGMA user_version").fetchone()
                if version not in {0, _VERSION}:
                    raise LedgerError(f"{path} is of another version of this program; upgrade it, or move that away")
                if not version:
                    with suppress(sqlite3.OperationalError):  # another process is about to do it
                        base.execute("PRAGMA journal_mode = WAL")
                    base.execute(f"PRAGMA user_version = {_VERSION}")
                base.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may cost the last numbers
                yield base

    @contextmanager
    def _telling(self) -> Generator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:  # locked, full, not to be written
            raise LedgerError(f"{self.path} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            remedy = "`manifold stats --clear` removes it"
            raise LedgerError(f"{self.path} is damaged ({error}); {remedy}") from error
        except OSError as error:
            raise LedgerError(f"{self.path} cannot be used: {error.strerror or error}") from error


def _there(base: sqlite3.Connection) -> bool:
    return base.execute("SELECT 1 FROM sqlite_schema WHERE name = 'usage'").fetchone() is not None


def _usage(sums: Sequence[float]) -> Usage:
    told = zip(_COLUMNS, sums, strict=True)
    numbers: list[Any] = [total if name.startswith("cost") else int(total) for name, total in told]
    return Usage(*numbers)
