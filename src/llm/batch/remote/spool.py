"""Parts on the disk: the rows as they were read, and beside them what is sent, byte for byte."""

from __future__ import annotations

import mmap
import os
from array import array
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, Final, Self, cast

from llm.batch.claim import telling
from llm.batch.lines import read_line, write_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from llm.batch.values import Row

    from .ledger import Plan
    from .values import Bounds
    from .vendor import BatchAPI

_ROWS: Final = ".jsonl"
_BODY: Final = ".body"
_BUFFER: Final = 1 << 20  # bytes


class Spool:
    """The folder of the parts."""

    def __init__(self, folder: Path) -> None:
        """Keep parts in `folder`."""
        self._folder = folder

    def begin(self, api: BatchAPI, mark: str, plan: Plan) -> PartWriter:
        """Begin a part, of which nothing is there yet, as `api` sends it; blocks.

        Raises:
            OSError: The disk is full, or the folder cannot be written to.
        """
        return PartWriter(self._path(plan.number, _ROWS), self._path(plan.number, _BODY), plan, api, mark)

    def rows(self, number: int) -> PartRows:
        """Open the rows of a part.

        Raises:
            OSError: They cannot be read.
        """
        return PartRows(self._path(number, _ROWS))

    def body(self, number: int) -> bytes:
        """Return what is sent for a part, without reading it: the system brings it in as it goes out.

        Raises:
            OSError: It cannot be read.
        """
        with self._path(number, _BODY).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cast("bytes", memoryview(mapped))  # a transport takes slices of it and its length, and no more

    def remove(self, number: int) -> None:
        """Remove the files of a part; blocks."""
        for kind in (_ROWS, _BODY):
            with suppress(FileNotFoundError):
                self._path(number, kind).unlink()

    def keep(self, numbers: set[int]) -> None:
        """Remove the files of all other parts, which a run left that was killed as it wrote them; blocks."""
        for path in self._folder.glob("*[0-9].*"):
            with suppress(ValueError):
                if int(path.stem) not in numbers:
                    path.unlink()

    def _path(self, number: int, kind: str) -> Path:
        return self._folder / f"{number:06d}{kind}"


class Room:
    """What still fits into a part."""

    def __init__(self, bounds: Bounds, head: int, between: int, tail: int) -> None:
        """Begin empty; the bytes before, between and after the rows count, too."""
        self._bounds = bounds
        self._between = between
        self._size = head + tail
        self._weight = 0

    def fits(self, size: int, weight: int) -> bool:
        """Return whether a row of so many bytes, with so many requests in it, may come in; the first always may."""
        more = size + self._between
        within = self._weight + weight <= self._bounds.rows and self._size + more <= self._bounds.size
        return not self._weight or within

    def add(self, size: int, weight: int) -> None:
        """Know that it came in."""
        self._size += size + self._between
        self._weight += weight


class PartWriter:
    """A part that is being written; its methods block.

    Attributes:
        rows: Rows in it.
        mark: What it is called at the vendor.
    """

    def __init__(self, rows: Path, body: Path, plan: Plan, api: BatchAPI, mark: str) -> None:
        """Begin both files.

        Raises:
            OSError: That failed.
        """
        self.rows: int = 0
        self._plan = plan
        self.mark: str = mark
        self._head, self._between, self._tail = api.envelope(mark)
        self._room = Room(api.bounds, *map(len, (self._head, self._between, self._tail)))
        self._paths = (rows, body)
        self._files: tuple[BinaryIO, BinaryIO] = (rows.open("wb", _BUFFER), body.open("wb", _BUFFER))
        self._files[1].write(self._head)

    @property
    def plan(self) -> Plan:
        """What is in it."""
        return replace(self._plan, rows=self.rows)

    def fits(self, size: int, weight: int) -> bool:
        """Return whether a row of so many bytes, with so many requests in it, may come in."""
        return self._room.fits(size, weight)

    def add(self, row: Row, sent: bytes, weight: int) -> None:
        """Add a row, and what is sent for it.

        Raises:
            OSError: Writing failed.
        """
        rows, body = self._files
        rows.write(write_line(row).encode())
        if self.rows:
            body.write(self._between)
        body.write(sent)
        self._room.add(len(sent), weight)
        self.rows += 1

    def finish(self) -> Plan:
        """Have the part on the disk, whole; return what is in it.

        Raises:
            OSError: Writing failed.
        """
        self._files[1].write(self._tail)
        for path, file in zip(self._paths, self._files, strict=True):
            with telling(str(path)), file:
                file.flush()
                os.fsync(file.fileno())
        return self.plan

    def discard(self) -> None:
        """Remove it."""
        for path, file in zip(self._paths, self._files, strict=True):
            with suppress(OSError):
                file.close()
            path.unlink(missing_ok=True)


class PartRows:
    """The rows of a part, by their number from 0; takes 8 bytes of memory a row. A context manager; blocks."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet."""
        self._path = path
        self._starts: array[int] = array("Q")
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Find where each row begins.

        Raises:
            OSError: The file cannot be read.
        """
        with telling(str(self._path)):
            self._file = self._stack.enter_context(self._path.open("rb"))
            start = 0
            for line in self._file:
                self._starts.append(start)
                start += len(line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        self._stack.close()

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self._starts)

    def __getitem__(self, number: int) -> Row:
        """Return a row."""
        self._file.seek(self._starts[number])
        return _row(self._file.readline(), number)

    def __iter__(self) -> Iterator[Row]:
        """Go over all rows."""
        self._file.seek(0)
        for number, line in enumerate(self._file):
            yield _row(line, number)


def _row(line: bytes, number: int) -> Row:
    return cast("Row", read_line(line, number, number + 1))  # as it was written by `write_line`
