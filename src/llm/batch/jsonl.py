"""Requests in JSON Lines, as OpenAI's Batch API takes them: one line in, one line out, and a file of any size.

Source: https://platform.openai.com/docs/guides/batch#1-prepare-your-batch-file
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias, cast

from .apart import apart
from .lines import BLANK, MAX_ROW_BYTES, read_line
from .source import DAMAGED, head_of, name_of, opened
from .values import BadRow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence

    from .source import Source
    from .values import Row

_BLOCK: Final = 256 * 1024
_PORTION: Final = 256

Lines: TypeAlias = "str | os.PathLike[str] | BinaryIO | bytes | Iterable[str | bytes]"
"""A path, a file opened for bytes, what such a file holds, or its lines."""


async def read_rows(
    source: Source, *, max_row_bytes: int = MAX_ROW_BYTES
) -> AsyncGenerator[Sequence[Row | BadRow], None]:
    """Yield the rows of a file, in portions of at most 256, as they are read in a thread; memory stays flat.

    Lines end at the newline byte alone. Blank lines are passed over; every other line is a `Row` or a `BadRow`, and no
    bad one costs another. Of a field that a line gives twice the last counts. What gzip packed is unpacked.

    Args:
        source: A path, or a file opened for bytes, which stays open.
        max_row_bytes: A longer line is a `BadRow`.

    Raises:
        LLMConfigurationError: The file cannot be read at all; says why and what to do.
    """
    portions = apart(partial(_portions, source, max_row_bytes))
    try:
        async for portion in portions:
            yield portion
    finally:
        await portions.aclose()


async def count_rows(source: Source) -> int:
    """Return how many lines are not blank, counted in a thread at the speed of the disk.

    Raises:
        LLMConfigurationError: The file cannot be read.
    """
    total = 0
    async for counted in apart(partial(_counts, source)):
        total = counted
    return total


def _portions(source: Source, max_row_bytes: int) -> Generator[list[Row | BadRow], None, None]:
    with opened(source) as file:
        yield from rows_in(file, name_of(source), max_row_bytes=max_row_bytes)


def rows_in(
    file: BinaryIO, name: str, *, max_row_bytes: int = MAX_ROW_BYTES
) -> Generator[list[Row | BadRow], None, None]:
    """Yield the rows of an open file, as `read_rows` does; blocks. `name` is for messages.

    Raises:
        LLMConfigurationError: It cannot be read, or is text in another coding.
    """
    order = number = 0
    try:
        head_of(file, name)
        for lines in _lines(_blocks(file), max_row_bytes):
            for start in range(0, len(lines), _PORTION):
                portion: list[Row | BadRow] = []
                for line in lines[start : start + _PORTION]:
                    number += 1
                    row = read_line(line, order, number, max_row_bytes)
                    if row is not None:
                        portion.append(row)
                        order += 1
                if portion:
                    yield portion
    except DAMAGED:
        said = f"{name} ends in the middle of its compressed data, or is damaged, after line {number}; make it anew"
        yield [BadRow(order, number + 1, None, "damaged_file", said)]


def each_row(source: Lines) -> Iterator[Row | BadRow]:
    """Yield the rows of a file, of what one holds, or of lines; blocks.

    Raises:
        LLMConfigurationError: The file cannot be read.
    """
    given: object = source
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes, os.PathLike, io.IOBase)):
        for order, line in enumerate(cast("Iterable[str | bytes]", given)):
            held = line.encode(errors="replace") if isinstance(line, str) else line
            read = read_line(held.removesuffix(b"\n"), order, order + 1)
            if read is not None:
                yield read
        return
    file = io.BytesIO(given) if isinstance(given, bytes) else cast("str | os.PathLike[str] | BinaryIO", given)
    with opened(file) as open_file:
        for portion in rows_in(open_file, name_of(file)):
            yield from portion


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    # What a pipe has by now, rather than a whole block when it is there.
    read: Callable[[int], bytes] = getattr(file, "read1", file.read)
    while block := read(_BLOCK):
        yield block


def _lines(blocks: Iterable[bytes], most: int) -> Iterator[list[bytes | None]]:
    """Yield the lines that end in each block, without their newline; None for one that is too long to be held."""
    held: list[bytes] = []
    size = 0
    for block in blocks:
        first, *others = block.split(b"\n")
        if others:
            yield [_joined(held, size + len(first), first, most), *others[:-1]]
            size, first = 0, others[-1]
        size += len(first)
        if size <= most:
            held.append(first)
        else:
            held.clear()
    if size:
        yield [_joined(held, size, b"", most)]


def _joined(held: list[bytes], size: int, last: bytes, most: int) -> bytes | None:
    whole = None if size > most else b"".join([*held, last])
    held.clear()
    return whole


def _counts(source: Source) -> Generator[int, None, None]:
    total, begun = 0, False
    with opened(source) as file:
        try:
            head_of(file, name_of(source))
            for block in _blocks(file):
                first, *others = block.split(b"\n")
                begun = begun or bool(first.strip(BLANK))
                if others:
                    total += begun + sum([1 for line in others[:-1] if line.strip(BLANK)])
                    begun = bool(others[-1].strip(BLANK))
                yield total + begun
        except DAMAGED:
            yield total + 1
