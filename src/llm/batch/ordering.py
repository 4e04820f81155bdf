"""Finished files in the order of their input."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final

from .claim import Replacement, claim, telling, trouble
from .finished import record_of
from .outlast import GivenUpError, outlast
from .slots import Slots, digester
from .values import Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Generator, Sequence

    from .claim import Claim
    from .values import BadRow

_PIECE: Final = 1 << 20  # bytes
_BUFFER: Final = 1 << 18  # bytes: rows end nearly in order, so the next line is often in it
_HEAD: Final = 4  # bytes of a digest that say where its home is
_DIGEST: Final = 8  # bytes of it that are kept
_OFFSET: Final = 6  # bytes
_SLOT: Final = _DIGEST + _OFFSET + 1
_WAITING: Final = 1
_TAKEN: Final = 2

# A line as we and OpenAI write it, so that its end, which may be far, need not be read to know its row.
_ANSWER: Final = re.compile(rb'\{"id": ?"[^"\\]*", ?"custom_id": ?"([^"\\]*)", ?"response": ?\{')


async def sort_output(
    output: str | os.PathLike[str],
    errors: str | os.PathLike[str] | None,
    portions: AsyncIterable[Sequence[Row | BadRow]],
) -> None:
    """Put the lines of an output and of its errors file into the order of the input, after the run.

    It takes 19 bytes a line of memory, however long lines are, and as much room on the disk as the files. The new files
    take the places of the old ones at once, at the end: where it fails, is cancelled or killed, they stay as they are.
    Lines of rows that the input does not have come last, in the order in which they are.

    Args:
        output: The file of answers; no journal may have it open.
        errors: The file of errors, where there may be one.
        portions: The rows of the input, in order.

    Raises:
        LLMConfigurationError: A file cannot be used; another run writes it, say.
        OSError: Reading or writing failed: a full disk, say.
    """
    stopped = threading.Event()
    sorting = _Sorting([path for path in (output, errors) if path is not None], stopped.is_set)
    try:
        await _apart(sorting.read, stopped)
        async for portion in portions:
            await _apart(partial(sorting.take, portion), stopped)
        await _apart(sorting.finish, stopped)
    finally:
        await _apart(sorting.close, stopped)


async def _apart(work: Callable[[], None], stopped: threading.Event) -> None:
    await outlast(asyncio.get_running_loop().run_in_executor(None, work), stopped.set)


class _Sorting:
    """The files, in a thread."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]], stopped: Callable[[], bool]) -> None:
        self._paths = paths
        self._stopped = stopped
        self._files: list[_File] = []

    def read(self) -> None:
        for path in self._paths:
            if os.path.exists(path):  # noqa: PTH110 - a text or a path
                self._files.append(_File(claim(path), self._stopped))
        for file in self._files:
            with telling(file.path):
                file.read()

    def take(self, rows: Sequence[Row | BadRow]) -> None:
        for row in rows:
            # The second row of a name is a bad one, which its line tells apart.
            if not (isinstance(row, Row) and self._take(row.custom_id)) and row.line is not None:
                self._take(row.line)

    def _take(self, name: str | int) -> bool:
        return any(file.take(name) for file in self._files)

    def finish(self) -> None:
        for file in self._files:
            with telling(file.path):
                file.finish()

    def close(self) -> None:
        for file in self._files:
            file.close()


class _File:
    """A file, where its lines begin, and the new one."""

    def __init__(self, claimed: Claim, stopped: Callable[[], bool]) -> None:
        self.path = claimed.path
        self._claim = claimed
        self._stopped = stopped
        self._old: BinaryIO = open(claimed.descriptor, "rb", buffering=_BUFFER, closefd=False)  # noqa: SIM115 - see close
        self._new: Replacement | None = None
        self._digest = digester(_HEAD + _DIGEST)
        self._left = 0

    def read(self) -> None:
        """Learn where the lines are."""
        self._new = Replacement(self._claim)
        last = b"\n"
        for last in self._claim.pieces(0, self._claim.size):
            self._left += last.count(b"\n")
        self._left += not last.endswith(b"\n")
        self._slots = Slots(self._left * 8 // 7 + 1, _SLOT)
        for start, name in self._lines():
            at, digest = self._find(name)
            if not self._slots.table[at + _SLOT - 1]:
                self._slots.table[at : at + _SLOT] = digest + start.to_bytes(_OFFSET) + bytes([_WAITING])

    def take(self, name: str | int) -> bool:
        """Copy the line of a row, where it has one that was not copied."""
        at, _ = self._find(name)
        if self._slots.table[at + _SLOT - 1] != _WAITING:
            return False
        self._slots.table[at + _SLOT - 1] = _TAKEN
        try:
            self._copy(self._start(at))
        except OSError as error:
            raise trouble(self.path, error) from error
        return True

    def finish(self) -> None:
        """Copy what no row of the input asked for, and put the new file in the old one's place."""
        assert self._new is not None  # noqa: S101 - read comes first
        if self._left:
            for start, name in self._lines():
                at, _ = self._find(name)
                if self._slots.table[at + _SLOT - 1] != _TAKEN or self._start(at) != start:
                    self._copy(start)
        self._old.close()
        self._new.commit()

    def close(self) -> None:
        self._old.close()
        if self._new is not None:
            self._new.discard()
        self._claim.close()

    def _find(self, name: str | int) -> tuple[int, bytes]:
        digest = self._digest(name)
        return self._slots.find(digest[_HEAD:], int.from_bytes(digest[:_HEAD])), digest[_HEAD:]

    def _start(self, at: int) -> int:
        return int.from_bytes(self._slots.table[at + _DIGEST : at + _DIGEST + _OFFSET])

    def _lines(self) -> Generator[tuple[int, str | int]]:
        """Where each line begins, and its row; one that is nobody's has a name of its own."""
        start, end = 0, self._claim.size
        while start < end:
            pieces = self._pieces(start)
            head = next(pieces)
            if answer := _ANSWER.match(head):
                size = len(head) + sum(map(len, pieces))
                yield start, answer[1].decode("utf-8", "surrogateescape")
            else:
                line = head + b"".join(pieces)
                size = len(line)
                known = record_of(line)
                yield start, -1 - start if known is None else known[0]
            start += size

    def _copy(self, start: int) -> None:
        assert self._new is not None  # noqa: S101 - read comes first
        self._left -= 1
        piece = b""
        for piece in self._pieces(start):
            self._new.write(piece)
        if not piece.endswith(b"\n"):
            self._new.write(b"\n")

    def _pieces(self, start: int) -> Generator[bytes]:
        """The line that begins there."""
        if self._stopped():
            raise GivenUpError
        self._old.seek(start)
        piece = b""
        while not piece.endswith(b"\n") and (piece := self._old.readline(_PIECE)):
            yield piece
