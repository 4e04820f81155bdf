"""A file that is there whole, or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from llm.core.exceptions import LLMInvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


@contextmanager
def written(path: Path) -> Generator[TextIO]:
    """Write beside the file and put that in its place at the end, for the owner's eyes alone; on a failure nothing.

    Raises:
        LLMInvalidRequestError: It is there and no plain file, or nothing can be written beside it.
        OSError: Writing failed.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise LLMInvalidRequestError(f"{path} is no plain file; name one, or - for stdout")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # its mode is 0600
    except OSError as error:
        raise LLMInvalidRequestError(f"{path} cannot be written: {error.strerror}; name another file") from error
    try:
        with open(handle, "w", encoding="utf-8") as file:  # noqa: PTH123 - it is open already
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def replaced(path: Path, text: str) -> None:
    """Put a text in the place of a file's, whole or not at all; who might read it still may.

    Raises:
        LLMInvalidRequestError: As for `written`.
        OSError: Writing failed.
    """
    with written(path) as file:
        if path.exists():
            os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
        file.write(text)


class Turn:
    """The right to read a file and change it, which one process of all has at a time; a file beside it is the token.

    Where the file system has no locks, everybody has it.
    """

    def __init__(self, path: Path, *, lock: Callable[[int, int], None] = fcntl.flock) -> None:
        """Wait for it.

        Args:
            path: The file, there or not.
            lock: What locks a descriptor.

        Raises:
            OSError: Nothing can be made beside the file.
        """
        target = path.resolve()
        self._token = target.with_name(f".{target.name}.lock")
        while not self._taken(lock):
            pass  # who had it before has removed the token

    def _taken(self, lock: Callable[[int, int], None]) -> bool:
        self._descriptor = os.open(self._token, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock(self._descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return True
            os.close(self._descriptor)
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._descriptor), self._token.stat()):
                return True
        os.close(self._descriptor)
        return False

    def close(self) -> None:
        """Give it back."""
        with suppress(OSError):
            self._token.unlink()
        os.close(self._descriptor)
