"""The file of a cache: opened, made, and set aside when it is damaged or somebody else's."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final, TypeVar

from .schema import DamagedError, check, configure, is_new, make

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from llm.utils.clock import Clock

_T = TypeVar("_T")
_logger = logging.getLogger("llm.cache")

_NAME: Final = "answers-1.sqlite"  # with the version of its tables, so that versions of this package do not fight
_PATIENCE: Final = 0.25  # seconds that a lock of another process is waited for
_PAUSE: Final = 0.005  # seconds between two looks at the folder's lock
_MOST_ASIDE: Final = 2  # files that were set aside and are kept
_BESIDE: Final = ("-wal", "-shm", "-journal")

# Result codes that the content of a file can cause, and no trouble around it: https://www.sqlite.org/rescode.html.
_DAMAGE: Final = frozenset(
    {
        sqlite3.SQLITE_ERROR,  # no such table, and the like
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_IOERR_SHORT_READ,
    }
)
_FAILURES: Final = (sqlite3.Error, UnicodeDecodeError)  # the second: a table's text, which is damaged
_PRIMARY: Final = 0xFF  # of an extended result code


class Place:
    """The folder of a cache, and the file in it.

    Nobody opens or closes that file but SQLite: closing any descriptor of it would end the locks of all connections in
    this process (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """

    def __init__(self, path: str, clock: Clock) -> None:
        """Take a folder's name; `~` is the home folder, and what is relative begins where the process first uses it."""
        self._path = path
        self._clock = clock

    @cached_property
    def file(self) -> Path:
        """The file's whole name."""
        return Path(os.path.expanduser(self._path)).absolute() / _NAME  # noqa: PTH111 - without a home, `~` is a name

    def identity(self) -> tuple[int, int] | None:
        """Return what tells the file from another one of its name; None where there is none."""
        try:
            found = os.stat(self.file)  # noqa: PTH116 - asked before each batch
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def begin(self) -> None:
        """Make folder and file where they are missing, for the owner alone."""
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def begin_file(self) -> None:
        """Make the file where it is missing, for the owner alone; what SQLite puts beside it is then too."""
        if self.identity() is None:
            os.close(os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            for beside in _BESIDE:  # of one that somebody took away
                self._beside(self.file, beside).unlink(missing_ok=True)

    def writable(self) -> bool:
        """Return whether this process may write to it."""
        return os.access(self.file, os.W_OK) and os.access(self.file.parent, os.W_OK)

    @contextmanager
    def alone(self) -> Generator[None]:
        """Keep other processes, and the other thread, from opening the file or setting it aside.

        Raises:
            OSError: Another one does for longer than a quarter of a second.
        """
        folder = os.open(self.file.parent, os.O_RDONLY)
        try:
            _lock(folder)
            yield
        finally:
            # Said, not left to the end of the descriptor: a child that was forked meanwhile has it too.
            fcntl.flock(folder, fcntl.LOCK_UN)
            os.close(folder)

    def set_aside(self, why: BaseException) -> None:
        """Rename the file, and tell why; of what was set aside before, little stays."""
        aside = self.file.with_name(f"{_NAME}.damaged-{int(self._clock.wall() * 1000):015d}-{os.getpid()}")
        self.file.rename(aside)
        with suppress(FileNotFoundError):
            self._beside(self.file, "-wal").rename(self._beside(aside, "-wal"))
        for beside in _BESIDE:
            self._beside(self.file, beside).unlink(missing_ok=True)
        _logger.warning("the cache file %s is damaged or not ours (%s); it is now %s", self.file, why, aside.name)
        names = {path.name.removesuffix("-wal") for path in self.file.parent.glob(f"{_NAME}.damaged-*")}
        for name in sorted(names)[:-_MOST_ASIDE]:
            for beside in ("", "-wal"):
                self._beside(self.file.with_name(name), beside).unlink(missing_ok=True)

    @staticmethod
    def _beside(file: Path, suffix: str) -> Path:
        return file.with_name(file.name + suffix)


def _lock(folder: int) -> None:
    for _ in range(round(_PATIENCE / _PAUSE)):
        with suppress(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        Event().wait(_PAUSE)
    raise OSError("another process is opening the cache's file for too long")


class Connection:
    """One connection to the file, for one thread; opened when it is used, and again after any trouble."""

    def __init__(self, place: Place) -> None:
        """Open nothing yet."""
        self._place = place
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do something with the file; with a new one, once more, where this shows that it is damaged.

        Raises:
            OSError: The file cannot be used now: locked, no room, no permission.
        """
        try:
            return self._once_or_twice(work)
        except BaseException as error:
            self.close()  # whatever it was, no transaction stays begun: the next one would take that for damage
            if isinstance(error, _FAILURES):
                raise OSError(f"the cache file {self._place.file} cannot be used: {error}") from error
            raise

    def close(self) -> None:
        """Close it, if it is open; what was not committed is undone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _once_or_twice(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return work(self._opened())
        except _FAILURES as error:
            if not self._gave_up(error):
                raise
        return work(self._opened())

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._place.identity() == self._identity:
                return self._connection
            self.close()  # another process set it aside, or somebody removed the folder
        self._place.begin()
        with self._place.alone():
            try:
                self._connection = self._open()
            except _FAILURES as error:
                if not self._is_damage(error):
                    raise
                self._place.set_aside(error)
                self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        self._place.begin_file()
        self._identity = self._place.identity()
        connection = sqlite3.connect(
            self._place.file, timeout=_PATIENCE, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            configure(connection)
            if is_new(connection):
                make(connection)
            check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _gave_up(self, error: Exception) -> bool:
        """Undo what was begun; return whether the file was set aside."""
        self.close()
        if not self._is_damage(error):
            return False
        with self._place.alone():
            if self._place.identity() == self._identity:  # else another process was quicker
                self._place.set_aside(error)
        return True

    def _is_damage(self, error: Exception) -> bool:
        code = _code(error)
        if code & _PRIMARY == sqlite3.SQLITE_READONLY:  # so says a header whose version of the format is not known
            return self._place.writable()
        return isinstance(error, (DamagedError, UnicodeDecodeError)) or code in _DAMAGE or code & _PRIMARY in _DAMAGE


def _code(error: Exception) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code
