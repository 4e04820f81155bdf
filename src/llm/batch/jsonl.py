"""Requests in JSON Lines, as OpenAI's Batch API takes them: one line in, one line out, and a file of any size.

Source: https://platform.openai.com/docs/guides/batch#1-prepare-your-batch-file
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from .apart import apart
from .source import DAMAGED, head_of, name_of, opened
from .values import CHAT, EMBEDDINGS, RESPONSES, BadRow, Row

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
    from typing import BinaryIO

    from .source import Source

MAX_ROW_BYTES: Final = 64 * 1024 * 1024
"""A longer line is a bad row, and is not held in memory."""

_BLOCK: Final = 256 * 1024
_PORTION: Final = 256
_BLANK: Final = b" \t\r"
_BOM: Final = b"\xef\xbb\xbf"

# Azure's own paths have no version.
_URLS: Final = {path: url for url in (CHAT, EMBEDDINGS, RESPONSES) for path in (url, url.removeprefix("/v1"))}


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


def read_line(line: bytes | None, order: int, number: int, max_row_bytes: int = MAX_ROW_BYTES) -> Row | BadRow | None:
    """Return what a line holds, None for a blank one.

    Args:
        line: The line, with or without its end; None for one that was too long to be held.
        order: The row's place, from 0.
        number: The line's number, from 1.
        max_row_bytes: A longer line is a bad row.
    """
    if line is None or len(line) > max_row_bytes:
        said = f"is longer than {max_row_bytes} bytes; make it shorter, or allow more (max_row_bytes)"
        return _bad(order, number, "row_too_large", said)
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _unread(line, order, number, error)
    if type(fields) is not dict:
        return _bad(order, number, "invalid_json", "is JSON but no object; write one JSON object on each line")
    given = cast("dict[str, Any]", fields)
    custom_id, url, body = given.get("custom_id"), given.get("url"), given.get("body")
    if type(custom_id) is str and custom_id and given.get("method") == "POST" and type(url) is str:
        known = _URLS.get(url)
        if known is not None and type(body) is dict:
            return Row(order, custom_id, known, cast("dict[str, Any]", body), number)
    return _refused(given, order, number)


def write_line(row: Row) -> str:
    """Return the line of a row with its newline, byte for byte as `json.dumps` writes it, and so in ASCII."""
    fields = {"custom_id": row.custom_id, "method": "POST", "url": row.url, "body": row.body}
    return json.dumps(fields, allow_nan=False) + "\n"


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
                begun = begun or bool(first.strip(_BLANK))
                if others:
                    total += begun + sum([1 for line in others[:-1] if line.strip(_BLANK)])
                    begun = bool(others[-1].strip(_BLANK))
                yield total + begun
        except DAMAGED:
            yield total + 1


def _unread(line: bytes, order: int, number: int, error: orjson.JSONDecodeError) -> Row | BadRow | None:
    if not line.strip(_BLANK):
        return None
    if line.startswith(_BOM):  # files were put one behind the other
        return read_line(line.removeprefix(_BOM), order, number)
    try:
        line.decode()
    except UnicodeDecodeError as fault:
        return _bad(
            order, number, "invalid_utf8", f"is not UTF-8 at its byte {fault.start + 1}; save the file as UTF-8"
        )
    said = f"is no JSON: {error.msg}, at its character {error.pos + 1}; write one JSON object on each line"
    return _bad(order, number, "invalid_json", said)


def _refused(fields: dict[str, Any], order: int, number: int) -> BadRow:
    """Return what is wrong with a line that is an object; its values stay out, for they may be content."""
    custom_id: object = fields.get("custom_id")
    known = custom_id if isinstance(custom_id, str) and custom_id else None
    if known is None:
        absent = custom_id is None or custom_id == ""
        code = "missing_custom_id" if absent else "invalid_custom_id"
        said = "has no custom_id" if absent else "has a custom_id that is no text"
        return _bad(order, number, code, f"{said}; give each row a text of its own")
    if fields.get("method") != "POST":
        return _bad(order, number, "invalid_method", 'has another method than "POST"; write that', known)
    url: object = fields.get("url")
    if not isinstance(url, str) or url not in _URLS:
        said = f"has a url that is none of {CHAT}, {EMBEDDINGS} and {RESPONSES}; write one of these"
        return _bad(order, number, "invalid_url", said, known)
    return _bad(order, number, "invalid_body", "has no body that is an object; put the request there", known)


def _bad(order: int, number: int, code: str, said: str, custom_id: str | None = None) -> BadRow:
    return BadRow(order, number, custom_id, code, f"line {number} {said}")
