"""How processes that share a folder hear that something was removed: a word in a file, a new one each time."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.utils.clock import Clock

    from .file import Place

_NAME: Final = "changes"
_BYTES: Final = 8
_LOOK: Final = 1.0  # seconds between two looks whether the file is there still, and between two tries to open it


class Notice:
    """The word, read in a microsecond, since it lies in the system's memory; reading is safe whatever becomes of it."""

    def __init__(self, place: Place, clock: Clock) -> None:
        """Take the folder; nothing is opened yet."""
        self._place = place
        self._now = clock.now
        self._listeners: list[Callable[[str | None], None]] = []
        self._file: int | None = None
        self._word = b""
        self._look_at = clock.now()

    def listen(self, forget: Callable[[str | None], None]) -> None:
        """Call `forget` with None when somebody removed or replaced something, or may have."""
        self._listeners.append(forget)

    def in_touch(self) -> bool:
        """Return whether nothing happened since the last time; False once where something did."""
        if self._file is None:
            return False
        word = os.pread(self._file, _BYTES, 0)
        if word == self._word and self._is_there():
            return True
        self._word = word
        for forget in self._listeners:
            forget(None)
        return False

    @property
    def wanted(self) -> bool:
        """Whether somebody listens and the file is to be opened."""
        return bool(self._listeners) and self._file is None and self._now() >= self._look_at

    def open(self) -> None:
        """Open the file, which is made where it is missing; in a thread. Where it cannot be, nobody is in touch."""
        if self._file is not None:  # several asked at once
            return
        self._look_at = self._now() + _LOOK
        with suppress(OSError):
            file = self._opened()
            word = os.pread(file, _BYTES, 0)
            if len(word) < _BYTES:
                os.pwrite(file, word := os.urandom(_BYTES), 0)
            self._word, self._file = word, file

    def tell(self) -> None:
        """Have all others forget; in a thread.

        Raises:
            OSError: They cannot be told.
        """
        file = self._opened() if self._file is None else self._file
        try:
            os.pwrite(file, os.urandom(_BYTES), 0)
        finally:
            if file != self._file:
                os.close(file)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _opened(self) -> int:
        name = self._place.file.parent / _NAME
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def _is_there(self) -> bool:
        now = self._now()
        if now < self._look_at:
            return True
        self._look_at = now + _LOOK
        if self._file is None or os.fstat(self._file).st_nlink:
            return True
        self.close()  # the folder was removed; the next who tells makes another file
        return False
