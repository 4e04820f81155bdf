"""One file that this process alone writes: opened or made, locked, and replaced as a whole."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_logger = logging.getLogger("llm.batch")

_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
_PIECE: Final = 1 << 20  # bytes
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(slots=True)
class Claim:
    """A file that is open and locked.

    Attributes:
        path: Its own name, links resolved.
        descriptor: For reading and appending; it carries the lock.
        made: Whether it was not there before.
    """

    path: str
    descriptor: int
    made: bool

    @property
    def size(self) -> int:
        """Bytes."""
        return os.fstat(self.descriptor).st_size

    def identity(self) -> tuple[int, int]:
        """Return what tells this file from every other, whatever it is called."""
        return _identity(os.fstat(self.descriptor))

    def pieces(self, start: int, end: int) -> Generator[bytes]:
        """Read what stands between two places, 1 MiB at a time."""
        while start < end and (piece := os.pread(self.descriptor, min(_PIECE, end - start), start)):
            yield piece
            start += len(piece)

    def close(self, *, keep: bool = True) -> None:
        """Give it back; one that is empty and not to be kept is removed."""
        if not keep and not self.size:
            with suppress(FileNotFoundError):
                os.unlink(self.path)  # noqa: PTH108 - a text
        os.close(self.descriptor)

    def put_back(self) -> None:
        """Keep what it holds under a name beside it that nobody has, ending in `.bak`, and begin it anew.

        Raises:
            LLMConfigurationError: It cannot be made anew.
            OSError: It cannot be renamed.
        """
        if self.size:
            os.rename(self.path, _free(f"{self.path}.bak"))  # noqa: PTH104 - a text
            old, self.descriptor = self.descriptor, claim(self.path).descriptor
            os.close(old)


def claim(path: str | os.PathLike[str], *, lock: Callable[[int, int], None] = fcntl.flock) -> Claim:
    """Open a file, or make it, for this process alone.

    Args:
        path: Its name; links are followed.
        lock: What locks a descriptor.

    Raises:
        LLMConfigurationError: It cannot be: a folder that is not there, no plain file, no permission, or another run
            has it.
    """
    name = os.path.realpath(path)
    _refuse_what_is_no_file(path)
    try:
        while True:
            descriptor, made = _open(name)
            try:
                _lock(descriptor, name, lock)
                if _identity(os.fstat(descriptor)) == _identity(os.stat(name)):  # noqa: PTH116 - a text
                    break
            except FileNotFoundError:
                pass  # somebody replaced or removed it in between: the lock is on what nobody sees any more
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(_new(name))  # noqa: PTH108 - left by a run that was killed
    except OSError as error:
        raise LLMConfigurationError(_why_not(name, error)) from error
    return Claim(name, descriptor, made)


class Replacement:
    """A new file that takes the place of a claimed one at once, or not at all."""

    def __init__(self, old: Claim) -> None:
        """Begin it beside the old one, with its permissions.

        Raises:
            OSError: The folder cannot be written to, or the disk is full.
        """
        self._old = old
        self._committed = False
        self._name = _new(old.path)
        self._descriptor = os.open(self._name, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(self._descriptor, "ab", buffering=_PIECE, closefd=False)
        status = os.fstat(old.descriptor)
        with suppress(PermissionError):
            os.fchown(self._descriptor, status.st_uid, status.st_gid)
        os.fchmod(self._descriptor, stat.S_IMODE(status.st_mode))

    def write(self, data: bytes) -> None:
        """Add to it."""
        self._file.write(data)

    def copy(self, start: int, end: int) -> None:
        """Add bytes of the old file."""
        for piece in self._old.pieces(start, end):
            self._file.write(piece)

    def commit(self) -> None:
        """Put it in the old one's place, on the disk, and let the claim be of it."""
        self._file.close()
        os.fsync(self._descriptor)
        with suppress(OSError):  # where there are no locks, the claim has told so
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.replace(self._name, self._old.path)  # noqa: PTH105 - a text
        self._committed = True
        os.close(self._old.descriptor)
        self._old.descriptor = self._descriptor
        _sync_folder(self._old.path)

    def discard(self) -> None:
        """Remove it, unless it took the old one's place, which else stays as it is."""
        if self._committed:
            return
        with suppress(OSError):
            self._file.close()
        os.close(self._descriptor)
        with suppress(OSError):
            os.unlink(self._name)  # noqa: PTH108 - a text


def trouble(path: str, error: OSError) -> OSError:
    """Return the system's error with the file's name, and what becomes of what it holds."""
    said = OSError(error.errno, f"{path}: {error.strerror}; what it holds stays, and a rerun goes on")
    said.__cause__ = error
    return said


@contextmanager
def telling(path: str) -> Generator[None]:
    """Let what fails in its body say so by the file's name.

    Raises:
        OSError: The system's error, told.
    """
    try:
        yield
    except OSError as error:
        raise trouble(path, error) from error


def _sync_folder(path: str) -> None:
    """Have the folder of a file on the disk, where its system can do that."""
    with suppress(OSError):
        folder = os.open(os.path.dirname(path), os.O_RDONLY)  # noqa: PTH120 - a text
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _free(name: str) -> str:
    return next(free for n in count(1) if not os.path.lexists(free := name if n == 1 else f"{name}{n}"))


def _new(name: str) -> str:
    return f"{name}.manifold-new"  # a name that nobody else gives


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _open(name: str) -> tuple[int, bool]:
    try:
        return os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(name, _FLAGS), False


def _refuse_what_is_no_file(path: str | os.PathLike[str]) -> None:
    # By the name given, as that of a pipe behind /dev/stdout leads nowhere; not opened, as that may do something.
    with suppress(OSError):
        name = os.fspath(path)
        if name == "-" or name.endswith(os.sep) or not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a text or a path
            raise LLMConfigurationError(
                f"{os.fspath(path)} is no plain file; a rerun reads back what was written, so name a file that stays"
            )


def _lock(descriptor: int, name: str, lock: Callable[[int, int], None]) -> None:
    try:
        lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LLMConfigurationError(f"another run writes {name} now; wait for its end, or name another file") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _logger.warning("%s is on a file system without locks: see that no other run writes it meanwhile", name)


def _why_not(name: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{name} cannot be made, for its folder is not there; make the folder, or name another file"
    return f"{name} cannot be written: {error.strerror}; name another file, or change that"
