"""A table's records, as CSV has them; `parquet` has the others.

Source: https://www.rfc-editor.org/rfc/rfc4180
"""

from __future__ import annotations

import csv
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from llm.core.exceptions import LLMConfigurationError

from .source import DAMAGED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Record(NamedTuple):
    """A place in a table.

    Attributes:
        line: Its line, or its number where the file has no lines, from 1.
        cells: The cells by their columns.
        fault: Why there are none: a word for programs, and one for people.
    """

    line: int
    cells: Mapping[str, object]
    fault: tuple[str, str] | None = None


_DELIMITERS: Final = ",;\t"


def csv_records(file: BinaryIO, name: str, max_line_bytes: int) -> tuple[Sequence[str], Iterator[Record]]:
    """Return the columns of the first line, and the records after it.

    Args:
        file: Where to read.
        name: What to call it in messages.
        max_line_bytes: A longer line is a fault, and is not held in memory.

    Raises:
        LLMConfigurationError: There is no first line. Reading the records raises it where the disk fails.
    """
    lines = _Lines(file, max_line_bytes)
    try:
        first = next(lines, "")
        delimiter = max(_DELIMITERS, key=lambda one: sum(map(len, csv.reader([first], delimiter=one))))
        # The limit is the process's: never set lower.
        csv.field_size_limit(max(csv.field_size_limit(), max_line_bytes))
        reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
        columns = next(reader, None)
    except (csv.Error, _TooLongError, *DAMAGED) as error:
        raise LLMConfigurationError(f"the first line of {name} is no CSV: {error}; write the columns' names") from None
    if not columns:
        raise LLMConfigurationError(f"{name} is empty; its first line must name the columns")
    return columns, _records(reader, lines, columns)


def _records(reader: Iterator[list[str]], lines: _Lines, columns: Sequence[str]) -> Iterator[Record]:
    cells: list[str] | None = []
    while cells is not None:
        line = lines.number + 1
        fault = None
        try:
            cells = next(reader, None)
        except csv.Error as error:
            fault = "invalid_csv", f"no CSV: {error}; put a cell with quotes in quotes, and double those in it"
        except _TooLongError as error:
            fault = "row_too_large", f"{error}; make it shorter"
        except DAMAGED:
            cells = None
            fault = "damaged_file", "the compressed data end in the middle, or are damaged; make the file anew"
        if fault is None and cells and len(cells) != len(columns) and any(cells):
            said = f"it has {len(cells)} cells, and the first line has {len(columns)}; make it as many"
            fault = "wrong_cells", said
        if fault is not None:
            yield Record(line, {}, fault)
        elif cells and len(cells) == len(columns):
            yield Record(line, dict(zip(columns, cells, strict=True)))


class _TooLongError(Exception):
    """A line is too long to be held."""


class _Lines:
    """The lines of a file as text, each with its end; what is no UTF-8 stays in it as halves of characters."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._most = most
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(self._most)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) == self._most and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = self._file.readline(self._most)
            raise _TooLongError(f"it is longer than {self._most} bytes")
        return line.decode("utf-8-sig" if self.number == 1 else "utf-8", "surrogateescape")
